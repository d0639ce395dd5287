"""`python -m src launch`: many of our commands at once, on an engine that is there."""

import argparse
import shlex
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from src import paths
from src.artifacts.folds import existing_scheme, fold_numbers
from src.artifacts.variants import taken_back_if_refused, write_variant
from src.cli import parsers
from src.cli.common import choose_dataset, named_scheme, print_table, show_log, taken
from src.cli.flags import COMMANDS, Parser, add_training
from src.cli.folds import folds_of
from src.cli.train import check_change, check_time, with_seeds
from src.compute.clock import Clock
from src.config import parse_change, read_model
from src.data.layouts.load import load_dataset
from src.ensemble.studies import open_storage
from src.errors import UserError, unknown_name
from src.launch.commands import WORKERS, CommandLine, command_tasks, shared_studies
from src.launch.cost import cost_line
from src.launch.dry import planned_folds, planned_members
from src.launch.engines import ENGINES, JobEngine, Resources
from src.launch.jobs import Models, Task
from src.launch.run import Launch
from src.launch.table import DONE, FAILED, JobRow, cells, count
from src.training.job import Options, check_fold
from src.training.trackers import check_tracker

EACH, REFIT = "all", "refit"  # words of --folds
ENDLESS = ("serve", "watch", "launch", "demo")  # commands that are no jobs
# Flags of train_folds.py that are the launcher's own business.
OWN = ("data", "scheme", "overwrite", "changes", "new_name")


@dataclass(frozen=True)
class Wanted:
    """What is to be done, as far as no data set must be read for it."""

    models: Sequence[str]
    lines: Sequence[CommandLine]  # beside the training
    then: Sequence[CommandLine]  # after it, one by one
    times: int  # processes of a search whose study is shared


def run_launch(arguments: Namespace) -> None:
    """Check all that can be checked, say what is to be done, and do it."""
    wanted = _wanted(arguments)
    resources = _resources(arguments)
    name = choose_dataset(arguments.data, arguments.input_root)
    show_log()
    engine = ENGINES.get(arguments.on)(replace(resources, dataset=name))
    if arguments.detach and not engine.detaches:
        raise UserError(f"--detach: jobs of --on {arguments.on} end with the launcher")
    with closing(engine):
        engine.check()
        with taken_back_if_refused():
            tasks, models = _tasks(wanted, arguments, name)
        launch = Launch(tasks, name, engine)
        launch.look()
        _print_plan(launch, engine)
        left = any(row.state != DONE for row in launch.rows.values())
        if arguments.dry_run or not (left or arguments.overwrite):
            return
        if arguments.overwrite and models is not None:
            models.take_away()
        for study in shared_studies([*wanted.lines, *wanted.then]):
            open_storage(study)  # workers that make its tables at once disturb each other
        _run(launch, arguments, name)


def _run(launch: Launch, arguments: Namespace, name: str) -> None:
    """Do what is to be done, and say what came of it."""
    try:
        launch.run(detach=arguments.detach)
    finally:
        rows = list(launch.rows.values())
        print()
        print_table(cells(rows))
        print(count(rows))
    failed = [row for row in rows if row.state == FAILED]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows)} jobs failed, all that they said is in "
            f"{paths.launch_dir(name)}; the same command tries them again, and skips what is done"
        )
    if arguments.detach:
        print("the jobs are in the queue; the same command waits for them")
    elif any(row.state != DONE for row in rows):
        print("the same command goes on from here")
    elif arguments.models and not arguments.then:
        print(f"next: python tune.py --data {name}{named_scheme(name, _scheme(name, arguments))}")


def _scheme(name: str, arguments: Namespace) -> str:
    return arguments.scheme or existing_scheme(name, None) or ""


def _print_plan(launch: Launch, engine: JobEngine) -> None:
    """Print all jobs, how they stand, and what the rest costs."""
    rows: list[JobRow] = list(launch.rows.values())
    print_table(cells(rows))
    left = [row.seconds for row in rows if row.state != DONE]
    cards = f", {engine.cards} GPUs" if engine.cards else ""
    cores = f"{engine.cores} core{'s' * (engine.cores > 1)}"
    print(f"{count(rows)}; each job gets {cores}{cards}")
    print(cost_line(left, engine.at_once))


def _wanted(arguments: Namespace) -> Wanted:
    """Read what is to be done; whatever is mistyped is said here, once.

    Raises:
        UserError: an unknown model, command or flag, or flags that do not go together.
    """
    check_time(arguments.minutes, Options(clock=Clock(arguments.max_hours)))
    check_tracker(arguments.track)
    models, changes = arguments.models, _changes(arguments)
    for model in models:
        read_model(model, changes)
    if changes and len(models) > 1:
        raise UserError("--set and --as change one model into one variant: launch it alone")
    if not models and not arguments.run and not arguments.then:
        raise UserError("nothing to do: --models NAME ..., --run COMMAND, or both")
    lines, then = ([read_line(text) for text in texts] for texts in (arguments.run, arguments.then))
    shares = [line for line in (*lines, *then) if line.name == WORKERS and line.flags.study]
    if arguments.times < 1 or (arguments.times > 1 and not shares):
        raise UserError(
            f"--times {arguments.times}: want 1 or more, of a tune.py with --study: several "
            "processes of another command would do the same work"
        )
    return Wanted(models, lines, then, arguments.times)


def _changes(arguments: Namespace) -> dict[str, object]:
    if arguments.models:
        check_change(arguments.models[0], arguments.changes, arguments.new_name)
    return dict(parse_change(change) for change in arguments.changes)


def _resources(arguments: Namespace) -> Resources:
    """Read what each job gets."""
    for flag in ("jobs", "cpus_per_job"):
        if getattr(arguments, flag) is not None and getattr(arguments, flag) < 1:
            raise UserError(
                f"--{flag.replace('_', '-')} {getattr(arguments, flag)}: want 1 or more"
            )
    cards = arguments.gpus_per_job
    if cards is not None and cards < 0:
        raise UserError(f"--gpus-per-job {cards}: want 0 or more")
    if ":" in arguments.device and cards != 0:
        raise UserError(
            f"--device {arguments.device}: cards are handed out, one set a job; say how many "
            "(--gpus-per-job), and which with CUDA_VISIBLE_DEVICES"
        )
    if arguments.device == "cpu":
        if cards:
            raise UserError(f"--device cpu and --gpus-per-job {cards} contradict each other")
        cards = 0
    pairs = [text.partition("=") for text in arguments.slurm]
    for key, sign, value in pairs:
        if not key.lstrip("-") or not sign or not value:
            raise UserError(f"--slurm {key}{sign}{value}: want KEY=VALUE, such as partition=gpu")
    if pairs and arguments.on != "slurm":
        raise UserError(f"--slurm is for --on slurm, not for --on {arguments.on}")
    slurm = {key.lstrip("-").replace("_", "-"): value for key, _, value in pairs}
    return Resources(
        "", arguments.jobs, cards, arguments.cpus_per_job, slurm, arguments.ray_address
    )


def _tasks(wanted: Wanted, arguments: Namespace, name: str) -> tuple[list[Task], Models | None]:
    """Return all jobs: folds and variants are made here, once, and not by jobs at once.

    A dry run makes neither.
    """
    training, tasks, scheme = None, [], arguments.scheme
    if wanted.models:
        training = _models(wanted.models, arguments, name)
        tasks, scheme = training.tasks(), training.scheme
    elif scheme is None:
        scheme = existing_scheme(name, None)
    first = 1 + max((task.stage for task in tasks), default=0)
    stages = [0] * len(wanted.lines) + [first + place for place in range(len(wanted.then))]
    for line, stage in zip([*wanted.lines, *wanted.then], stages, strict=True):
        shares = line.name == WORKERS and line.flags.study
        told = with_data(line, name, scheme, arguments.input_root)
        tasks += command_tasks(told, name, scheme, stage, wanted.times if shares else 1)
    twice = {task.key for task in tasks if [t.key for t in tasks].count(task.key) > 1}
    if twice:
        raise UserError(f"a job is there twice: {', '.join(sorted(twice))}; name it once")
    return tasks, training


def _models(models: Sequence[str], arguments: Namespace, name: str) -> Models:
    """Write the variants, make the folds, and return what is trained; a dry run says what of it."""
    options = taken(Options, arguments, overwrite=False)
    if arguments.dry_run:
        names, unmade = planned_members(
            models, _changes(arguments), arguments.new_name, arguments.seeds
        )
        dataset = load_dataset(name, arguments.input_root)
        scheme, folds, is_made = planned_folds(dataset, arguments.scheme)
        if unmade:
            print(f"would be written: configs of {', '.join(unmade)}")
        if not is_made:
            print(
                f"would be made: the folds {scheme} of {name}, for which each file is opened once"
            )
            unmade = {one: unmade.get(one) or read_model(one) for one in names}
    else:
        names, unmade = _written(models, arguments), {}
        dataset = load_dataset(name, arguments.input_root)
        scheme, folds, _ = folds_of(dataset, arguments.scheme, options)
    chosen: list[paths.FoldName] = []
    for word in arguments.folds:
        if word == EACH:
            chosen += fold_numbers(folds)
        elif word == REFIT:
            chosen.append(paths.ALL)
        elif not word.isdecimal():
            raise UserError(f"--folds {word}: want numbers, {EACH} or {REFIT}")
        else:
            check_fold(folds, int(word))
            chosen.append(int(word))
    return Models(
        dataset, scheme, folds, tuple(dict.fromkeys(names)), tuple(dict.fromkeys(chosen)), options,
        tuple(flags_of(arguments)), ranks=max(1, arguments.gpus_per_job or 1), unmade=unmade,
    )  # fmt: skip


def _written(models: Sequence[str], arguments: Namespace) -> list[str]:
    """Write the variants, and return the names of all members."""
    if arguments.new_name is not None:
        write_variant(arguments.new_name, models[0], _changes(arguments))
        models = [arguments.new_name]
    return [each for model in models for each in with_seeds(model, arguments.seeds)]


def flags_of(arguments: Namespace) -> list[str]:
    """Return the flags of train_folds.py that were given, as a job is given them.

    Files and folders are named from the root: a job may begin elsewhere.
    """
    parser, words = Parser(""), []
    add_training(parser)
    for action in parser._actions:
        value = getattr(arguments, action.dest, None)
        if action.dest in OWN or action.dest == "help" or value == action.default:
            continue
        flag = action.option_strings[-1]
        if isinstance(action, argparse._StoreConstAction):  # store_true, store_false
            words.append(flag)
        else:
            words += [flag, str(value.absolute() if isinstance(value, Path) else value)]
    if (arguments.gpus_per_job or 1) > 1:  # a plain command would leave all cards but one idle
        words += ["--ddp", str(arguments.gpus_per_job)]
    return words


def read_line(text: str) -> CommandLine:
    """Read a command as it is typed, by its own parser.

    Raises:
        UserError: no such command, one that is no job, or its own parser refuses it.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--run {text!r}: {error}") from None
    if words and Path(words[0]).name in ("python", "python3"):
        del words[0]
    if words[:2] == ["-m", "src"]:
        del words[:2]
    scripts = {file: name for name, file in parsers.SCRIPTS.items()}
    known = [
        *scripts,
        *(name.replace("_", "-") for name in COMMANDS if name not in parsers.SCRIPTS),
    ]
    known = [name for name in known if name not in (*ENDLESS, parsers.SCRIPTS["train"])]
    first = Path(words[0]).name if words else ""
    if first == parsers.SCRIPTS["train"]:
        raise UserError(f"--run {text!r}: training has flags of its own here: --models, --folds")
    if first not in known:
        raise unknown_name("command", first, known)
    name = scripts.get(first) or first.replace("-", "_")
    flags = parsers.make_parser(name).parse_args(words[1:])
    typed = [str(paths.REPO / first)] if first in scripts else ["-m", "src", first]
    return CommandLine(name, (*typed, *words[1:]), flags, shlex.join([first, *words[1:]]))


def with_data(
    line: CommandLine, dataset: str, scheme: str | None, input_root: Path | None
) -> CommandLine:
    """Return a command that names the launch's data set, where it names none itself."""
    flags, more = Namespace(**vars(line.flags)), []
    given = {"data": dataset, "scheme": scheme, "input_root": input_root}
    for key, value in given.items():
        if key in flags and getattr(flags, key) is None and value is not None:
            setattr(flags, key, value)
            value = value.absolute() if isinstance(value, Path) else value
            more += [f"--{key.replace('_', '-')}", str(value)]
    return replace(line, flags=flags, words=(*line.words, *more))


main = partial(parsers.main, "launch")
