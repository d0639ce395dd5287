"""`python -m src models`, what `--model` takes; `card`, their cost; `variants` of one model."""

import math
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src import config, paths
from src.artifacts.files import write_csv
from src.artifacts.folds import existing_scheme
from src.artifacts.outputs import check_output
from src.artifacts.variants import taken_back_if_refused, write_variant
from src.cli import parsers
from src.cli.common import choose_dataset, choose_tunable, print_table, show_log, taken
from src.cli.train import check_time, train_models
from src.compute.clock import Clock
from src.compute.device import chip_name, choose_device
from src.data.batches.augment import check_augment
from src.errors import UserError
from src.inference.cost import (
    Cost,
    Way,
    load_average,
    measure_ways,
    run_as,
    text_tower,
    way_of,
)
from src.inference.lineage import check_own
from src.machine import cpu_count
from src.models.classifier import measure
from src.reporting.cost_card import (
    MeasuredOn,
    Scored,
    against_lines,
    cost_lines,
    cost_table,
    is_disturbed,
    plot_costs,
)
from src.reporting.cost_limits import read_budget
from src.reporting.evaluated import honest_rows, how_decided, subject_of_model
from src.reporting.scorecard import score_rows
from src.seeds import derive_seed
from src.training.job import Options
from src.training.trackers import check_tracker

HEAD = (
    f"{'model':<20} {'weights':>9} {'GMACs':>7} {'px':>4}  {'mean':<14} {'std':<14} {'start':<7} "
    f"{'strategy':<17} licence of weights; about"
)


def run_models(_: Namespace) -> None:
    """List the models with sizes and licences."""
    print(HEAD)
    for name in config.model_names():
        settings = config.read_model(name)
        parameters, macs, spec = measure(settings)
        mean, std = ("/".join(f"{v:.2f}".lstrip("0") for v in t) for t in (spec.mean, spec.std))
        if settings.backbone.pretrained == "file" and settings.input.mean is None:
            mean = std = "of the file"
        print(
            f"{name:<20} {parameters / 1e6:>7.2f} M {macs / 1e9:>7.2f} "
            f"{spec.image_size:>4}  {mean:<14} {std:<14} {settings.backbone.pretrained:<7} "
            f"{settings.strategy:<17} {settings.licence}; {settings.about}"
        )
    print("GMACs: multiplications of one image; start: where the weights come from")
    print("any timm backbone: --model timm:NAME (default settings, its own size and normalisation)")


def run_card(arguments: Namespace) -> None:
    """Measure models in turns, print what they cost, write the CSV and the picture."""
    for flag in ("batch", "threads", "rounds", "seconds"):
        if not 0 < (value := getattr(arguments, flag)) < math.inf:
            raise UserError(f"--{flag} {value}: want more than 0")
    limits = read_budget(arguments.budget) if arguments.budget is not None else []
    if arguments.output is not None:
        check_output(arguments.output, ".csv", _is_a_card)
    where = _scored_on(arguments)
    names = [*([arguments.against] if arguments.against else []), *arguments.models]
    chip = choose_device(arguments.device)
    ways = [
        run_as(way, engine, arguments.precision, chip)
        for way in (_way(name, where) for name in dict.fromkeys(names))
        for engine in (arguments.engine if way.file is None else [way.engine])
    ]
    show_log()
    scores = {} if where is None else _scores(where, [way.name for way in ways], arguments)
    measured_on = MeasuredOn(
        chip_name(chip), arguments.batch, arguments.threads, arguments.rounds,
        chip.type == "cpu", load_average(), cpu_count(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        costs = measure_ways(
            ways, Path(folder), device=arguments.device, batch=arguments.batch,
            threads=arguments.threads, rounds=arguments.rounds, seconds=arguments.seconds,
        )  # fmt: skip
    teacher = costs[0] if arguments.against else None
    text = arguments.text_tower or any(way.config.language for way in ways)
    table = cost_table(costs, scores, teacher, limits, measured_on, text=text)
    print_table(cost_lines(costs, scores, limits, measured_on, text=text))
    if teacher is not None and len(costs) > 1:
        print()
        print_table(against_lines(costs, teacher, table))
    for line in _said_of_cost(measured_on, costs, scores, text=text):
        print(line)
    path = arguments.output or (
        paths.unscored_cost_csv() if where is None else paths.cost_csv(*where)
    )
    write_csv(path, table)
    picture = plot_costs(costs, scores, path.with_suffix(".png"))
    print(f"table: {path}" + (f", picture: {picture}" if picture else ""))


def _is_a_card(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().startswith("model,engine,precision,image_size,parameters,macs")


def _scored_on(arguments: Namespace) -> tuple[str, str] | None:
    """Return the data set and the scheme whose scores go beside; None where there is no such."""
    try:
        dataset = choose_tunable(arguments.data, arguments.input_root)
    except UserError:
        if arguments.data is not None:
            raise
        return None
    scheme = existing_scheme(dataset, arguments.scheme)
    if scheme is None and arguments.data is not None:
        raise UserError(f"{dataset} has no folds yet, so nothing of it is trained")
    return None if scheme is None else (dataset, scheme)


def _way(name: str, where: tuple[str, str] | None) -> Way:
    """Return what a name stands for; of a model that is trained here, its first checkpoint."""
    way = way_of(name, config.read_model)
    if way.checkpoint is None and where is not None:
        home = paths.run_dir(*where, name)
        found = sorted(p for p in home.glob("fold_*.safetensors") if "." not in p.stem)
        if found:
            return replace(way_of(str(found[0]), config.read_model), name=name)
    return way


def _scores(
    where: tuple[str, str], names: Sequence[str], arguments: Namespace
) -> dict[str, Scored]:
    """Return the scores of the models that have out-of-fold predictions."""
    found = {}
    for name in dict.fromkeys(names):
        if not any(paths.oof_dir(*where, name).glob("fold_*.csv")) if "/" not in name else True:
            continue
        subject = subject_of_model(*where, name)
        folds = tuple(subject.aligned.folds)
        check_own(*where, [name], folds, arguments.input_root)
        how = f"{subject.threshold} {how_decided(subject)}".strip()
        found[name] = Scored(score_rows(honest_rows(subject)), folds, how)
    return found


def _said_of_cost(
    measured_on: MeasuredOn, costs: Sequence[Cost], scores: dict[str, Scored], *, text: bool
) -> list[str]:
    """Return what the figures stand on."""
    threads = f"{measured_on.threads} thread{'s' * (measured_on.threads != 1)}"
    lines = [
        f"on {measured_on.device}, {threads}, batch {measured_on.batch}, {measured_on.rounds} "
        f"rounds in turns: median [lowest, highest]; load {measured_on.load:.2f}, "
        f"{measured_on.cores} cores",
        "first: the first image after loading, warm: the median of later ones; peak: of a process "
        "of its own that ran nothing else (libraries: what it held before the model)",
    ]
    if any(is_disturbed(cost, measured_on) for cost in costs):
        lines.append(
            "other work slowed models down: images/s and ms are not this machine's. Factors are of "
            "the same turns, images_per_cpu_second in the CSV is of CPU time; or measure again"
        )
    if text:
        lines.append(f"with text tower: CLIP's for ViT-B, {text_tower():,} weights")
    for name, scored in scores.items():
        folds = ", ".join(map(str, scored.folds))
        lines.append(
            f"{name}: out-of-fold, folds {folds}, {scored.card.items} items, threshold "
            f"{scored.threshold}"
        )
    if len({(s.folds, s.card.items) for s in scores.values()}) > 1:
        lines.append("scores are of different rows, so they are not to be held against each other")
    return lines


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


main = partial(parsers.main, "models")
