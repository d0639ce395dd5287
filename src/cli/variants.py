"""`python -m src variants`: train N variants of one model, the ingredients of a soup."""

from collections.abc import Sequence
from typing import Any

from src.cli import train
from src.cli.common import Parser, choose_dataset, run_command, show_log
from src.compute.clock import Clock
from src.errors import UserError

DESCRIPTION = """Train N variants of a model that differ in seed, learning rate and augmentation.

  python -m src variants mobilenetv2_100 --n 4 --fold 0 --weights FILE

MODEL_v0 is the model itself under a name of its own; the others draw theirs (equal draws on every
machine). All start from the same weights, head included, which is what lets them be merged:
docs/soups.md. The same command goes on where it stopped, and skips what is finished."""
AUGMENTS = ("crop_zoom", "light", "classic")


def make_parser() -> Parser:
    """Return the parser of `python -m src variants`."""
    parser = Parser(DESCRIPTION, prog="python -m src variants")
    parser.add_argument("model", metavar="MODEL", help="a config, or timm:NAME")
    parser.add_argument("--n", type=int, default=4, metavar="N", help="variants; default: 4")
    parser.add_argument(
        "--lr-factor", type=float, default=3.0, metavar="F",
        help="learning rates are drawn from 1/F to F times the model's; default: 3",
    )  # fmt: skip
    parser.add_argument(
        "--augments", nargs="+", metavar="NAME", default=None,
        help=f"presets to draw from; default: the model's own and {', '.join(AUGMENTS)}",
    )  # fmt: skip
    train.add_training_arguments(parser)
    return parser


def draw_variants(
    model: str, n: int, common: dict[str, Any], lr_factor: float, augments: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Return the changes of each variant against the model; the first has only the common ones.

    Learning rates are log-uniform, as in the random search of Wortsman et al. 2022 (Model soups,
    app. J.2.1); the seed counts up; augmentations are drawn from the presets.

    Args:
        model: name.
        n: how many.
        common: dotted keys to values that all share.
        lr_factor: F.
        augments: presets; None for the default ones.

    Raises:
        UserError: fewer than 2, a factor below 1, an unknown preset, or a key of `common` that the
            variants draw themselves.
    """
    import numpy as np

    from src.config import read_model
    from src.data.batches.augment import check_augment
    from src.seeds import derive_seed

    if n < 2:
        raise UserError(f"--n {n}: want 2 or more variants; one is what train_folds.py trains")
    if not 1 <= lr_factor < float("inf"):
        raise UserError(f"--lr-factor {lr_factor:g}: want 1 or more")
    config = read_model(model, common)
    presets = list(dict.fromkeys(augments or (config.augment, *AUGMENTS)))
    for preset in presets:
        check_augment(preset, config.input.geometry)
    drawn = [dict(common)]
    for number in range(1, n):
        rng = np.random.default_rng(derive_seed("variant", number))
        factor = float(lr_factor ** rng.uniform(-1, 1))
        drawn.append(
            common
            | {
                "seed": config.seed + number,
                "init_seed": config.start_seed,
                "optim.lr": float(f"{config.optim.lr * factor:.3g}"),
                "augment": presets[int(rng.integers(len(presets)))],
            }
        )
    return drawn


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    train.check_tracker(arguments.track)
    from src.artifacts.variants import taken_back_if_refused, write_variant
    from src.config import parse_change

    model = arguments.model
    common = dict(parse_change(change) for change in arguments.changes)
    drawn = draw_variants(model, arguments.n, common, arguments.lr_factor, arguments.augments)
    dataset = choose_dataset(arguments.data, arguments.input_root)
    stem = arguments.new_name or model.replace(":", "_")
    names = [f"{stem}_v{number}" for number in range(arguments.n)]
    show_log()
    clock = Clock(arguments.max_hours)
    with clock.running(), taken_back_if_refused():
        for name, changes in zip(names, drawn, strict=True):
            write_variant(name, model, changes)
            shown = ", ".join(f"{key}={value}" for key, value in changes.items()) or "as it is"
            print(f"{name}: {model}, {shown}")
        train.train_models(names, dataset, arguments, clock)
    listed = ", ".join(names)
    print(f"merge: models: [{listed}] in configs/merges/NAME.yaml, then python -m src merge NAME")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src variants`; returns the exit code."""
    return run_command(_run, argv)
