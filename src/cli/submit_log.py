"""`python -m src submit-log`: the book of submissions, cross-fitted against public scores."""

import shutil
import subprocess
from argparse import Namespace
from functools import partial
from typing import Any

from src import paths
from src.artifacts.submission_log import Submitted, add_submission, read_log
from src.cli import parsers
from src.cli.common import print_table
from src.errors import UserError, unknown_name
from src.reporting.charts import plot_log


def run_submit_log(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    wants = {"--data": arguments.data, "--recipe": arguments.recipe}
    given = [flag for flag, value in wants.items() if value is not None]
    extras = arguments.public is not None or arguments.upload or arguments.message
    if (given or extras) and len(given) < len(wants):
        raise UserError("a submission is named by --data and --recipe")
    if given:
        _add(arguments)
    table = read_log(paths.submission_log_csv())
    if table.empty:
        print("no submission is written down yet: --data NAME --recipe NAME adds one")
        return
    _show(table)


def _add(arguments: Namespace) -> None:
    paths.check_plain(arguments.data, "--data")
    paths.check_plain(arguments.recipe, "--recipe")
    path = paths.submission_csv(arguments.data, arguments.recipe)
    if not path.is_file():
        home = path.parent
        names = sorted(p.stem for p in home.glob("*.csv")) if home.is_dir() else []
        if not names:
            raise UserError(f"{home} holds no submission; python predict_ensemble.py writes one")
        raise unknown_name("submission", arguments.recipe, names)
    submitted = Submitted.of(path, arguments.data, arguments.recipe, arguments.public)
    if arguments.upload:
        read_log(paths.submission_log_csv())  # what cannot be written down is not handed in
        _upload(arguments.upload, str(path), arguments.message or arguments.recipe)
    add_submission(paths.submission_log_csv(), submitted, arguments.message)


def _upload(competition: str, path: str, message: str) -> None:
    """Hand a file in through Kaggle's client; its own words are passed on."""
    client = shutil.which("kaggle")
    if client is None:
        raise UserError("--upload wants Kaggle's client: pip install kaggle, then its API token")
    command = [client, "competitions", "submit", "-c", competition, "-f", path, "-m", message]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    if done.returncode:
        raise UserError(f"kaggle says: {said or f'exit code {done.returncode}'}")
    print(said)


def _show(table: Any) -> None:  # noqa: ANN401 - a data frame, loaded lazily
    columns = ["time", "data", "recipe", "metric", "output", "cross_fitted", "low", "high",
               "public", "note"]  # fmt: skip
    shown = table[columns].map(lambda v: f"{v:.4f}" if isinstance(v, float) else str(v))
    shown = shown.mask(table[columns].isna(), "")
    print_table([columns, *shown.to_numpy().tolist()])
    scored = table.dropna(subset=["public", "cross_fitted"])
    for metric, part in scored.groupby("metric"):
        if len(part) < 2:
            continue
        gap = (part["public"] - part["cross_fitted"]).mean()
        print(f"{metric}: public - cross-fitted: mean {gap:+.4f} over {len(part)} submissions")
        if len(part) >= 3:
            agree = part["public"].corr(part["cross_fitted"], method="spearman")
            print(f"rank correlation {agree:+.2f}: trust the one that stays high")
    if scored["metric"].duplicated().any():
        most = scored["metric"].mode()[0]
        part = scored[scored["metric"] == most]
        print(f"plot of {most}: {plot_log(part, paths.submission_log_png())}")


main = partial(parsers.main, "submit_log")
