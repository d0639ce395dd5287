"""`predict_ensemble.py --vote`: the majority of submission files, or the mean of probabilities."""

from argparse import Namespace
from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts.answers import LOG_LOSS, Output, keep_off
from src.artifacts.competition import FREE, CompetitionRules, Load
from src.artifacts.files import sha256_file
from src.artifacts.outputs import check_submission
from src.artifacts.submissions import SubmissionFormat, refuse_constant, write_answers
from src.cli.common import choose_dataset
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.ensemble.vote_files import Ballots, Voted, read_ballots, vote_files
from src.errors import UserError
from src.metrics import metric_named


def vote_on_files(arguments: Namespace) -> None:
    """Write what submission files say together as a submission, with a sidecar.

    With `--data` the answer is checked against the competition's rules and its sample, put into its
    order and written to submissions/<data set>/; without, `--output` says where.
    """
    _refuse_flags(arguments)
    ballots = read_ballots(arguments.vote, arguments.vote_weights)
    path: Path | None = arguments.output
    doubts: list[str] = []
    if arguments.data is None:
        voted = vote_files(ballots, arguments.output_kind)
    else:
        name = choose_dataset(arguments.data, arguments.input_root)
        dataset = load_dataset(name, arguments.input_root)
        doubts = _check_rules(dataset.config.rules, ballots)
        voted = _vote_for(dataset, ballots, arguments.output_kind)
        path = path or paths.submission_csv(name, "voted")
    if path is None:
        raise UserError("--vote wants --output CSV, or --data NAME to write and check it there")
    if path.resolve() in [other.resolve() for other in ballots.paths]:
        raise UserError(f"{path} is one of the files that vote; write elsewhere with --output")
    read = paths.dataset_dir(arguments.data, arguments.input_root) if arguments.data else None
    check_submission(path, "voted", read=read, is_own_place=arguments.output is None)
    held = voted.hold()
    refuse_constant(path, held)
    files = [
        {"file": file.name, "weight": weight, "sha256": sha256_file(file)}
        for file, weight in zip(ballots.paths, ballots.weights, strict=True)
    ]
    sidecar = {"voted": files, "ties": voted.ties, "rows": held.rows, "holds": held.record()}
    sidecar["doubts"] = doubts
    said = str(held)
    if voted.output == "label":
        shares = voted.table[voted.answer_column].value_counts(normalize=True).round(6).to_dict()
        sidecar["shares"] = shares
        said = ", ".join(f"{share:.1%} {word}" for word, share in shares.items())
        said += f"; {voted.ties} ties"
    write_answers(path, voted.table, sidecar)
    print(f"{len(ballots.paths)} files, {held.rows} items: {said}")
    if voted.ties:
        print("a tie went to the file of the highest weight, of equal ones to the first")
    for doubt in doubts:
        print(f"WARNING {doubt}")
    print(f"submission: {path}")


def _check_rules(rules: CompetitionRules, ballots: Ballots) -> list[str]:
    """Return what is doubtful of files under a competition's rules: most of these files hide.

    Raises a UserError where the number of files breaks one: a net each is the least behind them.
    """
    if rules == FREE:
        return []
    n = len(ballots.paths)
    if rules.broken_by(Load(nets=n, parameters=0, views=1)):
        raise UserError(
            f"--vote: {n} files come of {n} nets at least, which breaks the rules of the "
            f"competition ({rules}): hand in one of them, or a recipe that obeys (python tune.py); "
            "without --data and with --output CSV the vote is written to look at"
        )
    return [
        f"the rules of the competition ({rules}) were not checked: files of answers do not say "
        "which nets made them, nor how"
    ]


def _vote_for(dataset: Dataset, ballots: Ballots, given: Output | None) -> Voted:
    """Vote as a data set's sample, metric or dataset.yaml wants; raises where the files differ."""
    layout, metric = dataset.require_test(), dataset.config.metric
    wanted, why = _wanted(dataset, layout, given)
    answer = layout.answer_column
    columns = None if answer is None else (layout.id_column, answer)
    voted = vote_files(ballots, "rank" if wanted == "rank" else given, columns)
    voted = _like_the_sample(voted, layout, dataset.name)
    if wanted is not None and wanted != voted.output:
        raise UserError(
            f"the files hold {voted.output}s, and {why}: vote on other files, or say what to "
            f"write: --output-kind {voted.output}"
        )
    if metric == LOG_LOSS and voted.output == "prob":
        answers, clipped = keep_off(voted.table[voted.answer_column])
        table = voted.table.assign(**{voted.answer_column: answers})
        voted = voted._replace(table=table, clipped=clipped)
    return voted


def _wanted(
    dataset: Dataset, layout: SubmissionFormat, given: Output | None
) -> tuple[Output | None, str]:
    """Return what the competition wants, as far as anything says so, and what says it."""
    config, asked = dataset.config, layout.asked
    if given is not None:
        return given, ""
    if config.output is not None:
        return config.output, f"dataset.yaml says `output: {config.output}`"
    if asked is not None:
        return asked.output, asked.why
    if config.metric is not None:
        output: Output = "label" if metric_named(config.metric).decides else "prob"
        return output, f"dataset.yaml says `metric: {config.metric}`"
    return None, ""


def _refuse_flags(arguments: Namespace) -> None:
    """Raise for flags that votes on files would pass over in silence."""
    named = ("recipe", "checkpoint", "input_dir", "prior", "max_hours", "deliveries", "risk")
    given = [flag for flag in named if getattr(arguments, flag) is not None]
    given += [flag for flag in ("refit", "overwrite", "fit_in_time") if getattr(arguments, flag)]
    if arguments.threshold != 0.5:
        given.append("threshold")
    for flag in given:
        raise UserError(f"--vote and --{flag.replace('_', '-')} do not go together")


def _like_the_sample(voted: Voted, layout: SubmissionFormat, dataset: str) -> Voted:
    """Return the answers in the sample's rows and order; raises where they do not fit it."""
    header, found = layout.header_of(voted.output), list(voted.table.columns)
    if found != header:
        raise UserError(f"the files have columns {found}, {dataset} wants {header}")
    answers = voted.table.set_index(voted.id_column)[voted.answer_column]
    wanted = pd.Index(layout.item_ids)
    lacking, unknown = wanted.difference(answers.index), answers.index.difference(wanted)
    if len(lacking) or len(unknown):
        what = (
            f"lack id {lacking[0]!r}" if len(lacking) else f"name {unknown[0]!r}, which it has not"
        )
        raise UserError(f"the files {what} of the sample submission of {dataset}")
    words = sorted(set(answers) - set(layout.label_names)) if voted.output == "label" else []
    if words:
        raise UserError(f"label {words[0]!r} is none of {list(layout.label_names)} of {dataset}")
    return voted._replace(table=layout.table(voted.output, answers.loc[layout.item_ids]))
