"""`python -m src card`: what models cost beside each other, measured in turns."""

import math
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from src import config, paths
from src.artifacts.files import write_csv
from src.artifacts.folds import existing_scheme
from src.artifacts.outputs import check_output
from src.cli.common import choose_tunable, print_table, show_log
from src.compute.device import chip_name, choose_device
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
