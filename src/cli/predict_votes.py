"""`predict_ensemble.py --vote`: the majority of submission files."""

from argparse import Namespace
from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.outputs import check_submission
from src.artifacts.submissions import write_answers
from src.cli.common import choose_dataset
from src.data.layouts.load import load_dataset
from src.ensemble.vote_files import read_ballots, vote_files
from src.errors import UserError


def vote_on_files(arguments: Namespace) -> None:
    """Write the majority of submission files as a submission, with a sidecar.

    With `--data` the answer is checked against the competition's sample, put into its order and
    written to submissions/<data set>/; without, `--output` says where.
    """
    _refuse_flags(arguments)
    ballots = read_ballots(arguments.vote, arguments.vote_weights)
    table, ties = vote_files(ballots)
    path: Path | None = arguments.output
    if arguments.data is not None:
        name = choose_dataset(arguments.data, arguments.input_root)
        table = _like_the_sample(table, name, arguments.input_root)
        path = path or paths.submission_csv(name, "voted")
    if path is None:
        raise UserError("--vote wants --output CSV, or --data NAME to write and check it there")
    if path.resolve() in [other.resolve() for other in ballots.paths]:
        raise UserError(f"{path} is one of the files that vote; write elsewhere with --output")
    read = paths.dataset_dir(arguments.data, arguments.input_root) if arguments.data else None
    check_submission(path, "voted", read=read, is_own_place=arguments.output is None)
    files = [
        {"file": file.name, "weight": weight, "sha256": sha256_file(file)}
        for file, weight in zip(ballots.paths, ballots.weights, strict=True)
    ]
    shares = table.iloc[:, 1].value_counts(normalize=True).round(6).to_dict()
    sidecar = {"voted": files, "ties": ties, "rows": len(table), "shares": shares}
    write_answers(path, table, sidecar)
    said = ", ".join(f"{share:.1%} {word}" for word, share in shares.items())
    print(f"{len(ballots.paths)} files, {len(table)} items: {said}; {ties} ties")
    if ties:
        print("a tie went to the file of the highest weight, of equal ones to the first")
    print(f"submission: {path}")


def _refuse_flags(arguments: Namespace) -> None:
    """Raise for flags that votes on files would pass over in silence."""
    named = ("recipe", "checkpoint", "input_dir", "prior", "max_hours")
    given = [flag for flag in named if getattr(arguments, flag) is not None]
    given += [flag for flag in ("refit", "overwrite", "fit_in_time") if getattr(arguments, flag)]
    if arguments.threshold != 0.5:
        given.append("threshold")
    for flag in given:
        raise UserError(f"--vote and --{flag.replace('_', '-')} do not go together")


def _like_the_sample(table: pd.DataFrame, dataset: str, input_root: Path | None) -> pd.DataFrame:
    layout = load_dataset(dataset, input_root).require_test()
    header = [layout.id_column, layout.label_column]
    if list(table.columns) != header:
        raise UserError(f"the files have columns {list(table.columns)}, {dataset} wants {header}")
    found = table.set_index(header[0])[header[1]]
    wanted = pd.Index(layout.item_ids)
    lacking, unknown = wanted.difference(found.index), found.index.difference(wanted)
    if len(lacking) or len(unknown):
        what = (
            f"lack id {lacking[0]!r}" if len(lacking) else f"name {unknown[0]!r}, which it has not"
        )
        raise UserError(f"the files {what} of the sample submission of {dataset}")
    words = sorted(set(found) - set(layout.label_names))
    if words:
        raise UserError(f"label {words[0]!r} is none of {list(layout.label_names)} of {dataset}")
    return found.loc[layout.item_ids].rename_axis(header[0]).reset_index()
