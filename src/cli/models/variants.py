"""`python -m src variants`: N models that differ in what chance and settings make of one."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np

from src import config
from src.artifacts.variants import taken_back_if_refused, write_variant
from src.cli import parsers
from src.cli.common import choose_dataset, show_log, taken
from src.cli.train import check_time, train_models
from src.compute.clock import Clock
from src.data.batches.augment import check_augment
from src.errors import UserError
from src.seeds import derive_seed
from src.training.job import Options
from src.training.trackers import check_tracker


def run_variants(arguments: Namespace) -> None:
    """Train N variants of a model, the ingredients of a soup."""
    check_tracker(arguments.track)
    model = arguments.model
    common = dict(config.parse_change(change) for change in arguments.changes)
    drawn = draw_variants(model, arguments.n, common, arguments.lr_factor, arguments.augments)
    dataset = choose_dataset(arguments.data, arguments.input_root)
    stem = arguments.new_name or model.replace(":", "_")
    names = [f"{stem}_v{number}" for number in range(arguments.n)]
    show_log()
    options = taken(Options, arguments, clock=Clock(arguments.max_hours))
    check_time(arguments.minutes, options)
    with options.clock.running(), taken_back_if_refused():
        for name, changes in zip(names, drawn, strict=True):
            write_variant(name, model, changes)
            shown = ", ".join(f"{key}={value}" for key, value in changes.items()) or "as it is"
            print(f"{name}: {model}, {shown}")
        train_models(
            names, dataset, options,
            scheme=arguments.scheme, fold=arguments.fold, input_root=arguments.input_root,
            minutes=arguments.minutes,
        )  # fmt: skip
    listed = ", ".join(names)
    print(f"merge: models: [{listed}] in configs/merges/NAME.yaml, then python -m src merge NAME")


def draw_variants(
    model: str, n: int, common: dict[str, Any], lr_factor: float, augments: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Return the changes of each of `n` variants; the first has only the common ones.

    Learning rates are log-uniform between 1/F and F times the model's, as in the random search of
    Wortsman et al. 2022 (Model soups, app. J.2.1); the seed counts up; augmentations are drawn
    from presets (None for the default ones).
    """
    if n < 2:
        raise UserError(f"--n {n}: want 2 or more variants; one is what train_folds.py trains")
    if not 1 <= lr_factor < float("inf"):
        raise UserError(f"--lr-factor {lr_factor:g}: want 1 or more")
    read = config.read_model(model, common)
    wanted = augments or (read.augment, *parsers.AUGMENTS)
    presets = [one for place, one in enumerate(wanted) if one not in wanted[:place]]
    for preset in presets:
        check_augment(preset, read.input.geometry)
    drawn = [dict(common)]
    for number in range(1, n):
        rng = np.random.default_rng(derive_seed("variant", number))
        factor = float(lr_factor ** rng.uniform(-1, 1))
        drawn.append(
            common
            | {
                "seed": read.seed + number,
                "init_seed": read.start_seed,
                "optim.lr": float(f"{read.optim.lr * factor:.3g}"),
                "augment": presets[int(rng.integers(len(presets)))],
            }
        )
    return drawn
