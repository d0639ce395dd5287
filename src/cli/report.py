"""`python -m src report`: a page a model; `submit-log`: a book.

Where a net looks (`attention`), and where it says that pixels were changed (`evaluate --by mask`).
"""

import math
import shutil
import subprocess
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.folds import existing_scheme
from src.artifacts.submission_log import Submitted, add_submission, read_log
from src.cli import parsers
from src.cli.common import (
    choose_dataset,
    choose_scheme,
    choose_tunable,
    print_table,
    show_log,
    taken,
)
from src.compute.request import Compute
from src.data.layouts.load import load_dataset
from src.errors import UserError, unknown_name
from src.inference.lineage import check_own
from src.reporting.attention_sheet import AttentionRequest, draw_attention
from src.reporting.charts import plot_log
from src.reporting.localisation.card import (
    choose_cuts,
    draw_localised,
    records,
    score_localised,
    table_of,
)
from src.reporting.localisation.localised import held_out, localise
from src.reporting.report.subjects import CROSS, FITTED, Reported, scores_of, subject_of_runs
from src.reporting.report.write import ItemFiles, write_report
from src.reporting.runs import collect_runs, reportable

COLUMNS = 4  # of a printed table
LEGEND = """Map and truth are compared in {side} x {side} cells a picture. boundary: cells where two
pictures meet; region: cells of which more than a tenth was replaced. pixel_auc, iou and f1 are of
all cells of all pictures together, a real's all untouched; image_auc and image_iou are means over
manipulated pictures; false_alarms is the share of the reals' cells that are called so.
called so from: boundary {boundary}
                region {region}
Intervals: 95 %, by group, cuts held fixed."""


def run_report(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    name = choose_tunable(arguments.data, arguments.input_root)
    show_log()
    scheme = existing_scheme(name, arguments.scheme)
    if scheme is None:
        raise UserError(
            f"{name} has no folds{f' {arguments.scheme}' if arguments.scheme else ''} yet, so no "
            f"run either: python train_folds.py --model NAME --data {name}"
        )
    known = reportable(name, scheme)
    if not known:
        raise UserError(
            f"{name}/{scheme} has no finished run yet: python train_folds.py --model NAME"
        )
    asked = list(dict.fromkeys(arguments.models))
    models, troubles = [], []
    for model in dict.fromkeys([*asked, *known]):
        try:
            runs = collect_runs(name, scheme, model)
            check_own(name, scheme, [model], runs.folds, arguments.input_root)
        except UserError as error:
            if model in asked or len(known) == 1:
                raise
            troubles.append(f"{model} is not shown: {error}")
            if len(troubles) == len(known):
                raise
            continue
        models.append(subject_of_runs(runs))
    files = _files(name, arguments.input_root)
    written = write_report(
        name, scheme, models, files, chosen=asked or None, troubles=troubles, maps=arguments.maps
    )
    for trouble in troubles:
        print(trouble)
    for one in written.pages:
        print(f"{one.name}: {_summary(one)} -> {one.page}")
    print(f"report: {written.index}")


def _files(name: str, input_root: Path | None) -> ItemFiles:
    """Return a data set's files, or why there are none: predictions can be shown without."""
    try:
        dataset = load_dataset(name, input_root)
    except UserError as error:
        return ItemFiles.of(None, name, f"the data set cannot be read: {error}")
    return ItemFiles.of(dataset, name)


def _summary(one: Reported) -> str:
    if one.rows is None:
        return one.trouble or "nothing held out"
    scores = scores_of(one)
    cross = f"{scores[CROSS]:.4f} cross-fitted, " if CROSS in scores else ""
    area = f"none ({one.auc.why})" if math.isnan(one.auc.value) else f"{scores['auc']:.4f}"
    return (
        f"{scores['items']} items, macro_f1 {cross}{scores['macro_f1']:.4f} at 0.5 "
        f"(in-sample {scores[FITTED]:.4f}), auc {area}, ece {scores['ece']:.4f}"
    )


def run_attention(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    show_log()
    name = choose_dataset(arguments.data, arguments.input_root)
    scheme = choose_scheme(name, arguments.scheme)
    output = arguments.output
    if output is not None and output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: want a .png file; the CSV is written beside it")
    dataset = load_dataset(name, arguments.input_root)
    asked = taken(AttentionRequest, arguments, scheme=scheme)
    png, table = draw_attention(dataset, arguments.model, asked, output)
    print(f"picture: {png}")
    if table is None:
        return
    print_table([
        [arguments.model, asked.against or "", "agreement", "correlation"],
        *([str(row.layer), str(row.other_layer), f"{row.agreement:.4f}", f"{row.correlation:.4f}"]
          for row in table.itertuples()),
    ])  # fmt: skip
    print(
        "agreement: mean cosine of both maps over "
        f"{table['items'].iloc[0]} pictures, near 1 where both are even; correlation: of what "
        "each has above its mean"
    )
    print(f"table: {png.with_suffix('.csv')}")


def run_localisation(arguments: Namespace) -> None:
    """Score where a model says that held-out items were manipulated: `evaluate --by mask`."""
    _check_flags(arguments)
    show_log()
    name = choose_tunable(arguments.data, arguments.input_root)
    scheme, model = choose_scheme(name, arguments.scheme), arguments.model
    folds, rows = held_out(name, scheme, model, arguments.folds)
    check_own(name, scheme, [model], folds, arguments.input_root)
    dataset = load_dataset(name, arguments.input_root)
    compute = taken(Compute, arguments)
    found = localise(dataset, scheme, model, rows, compute, blends=arguments.blends)
    cuts = choose_cuts(found)
    cards = score_localised(found, cuts)
    which = f"fold{'s' * (len(folds) > 1)} {' '.join(map(str, folds))}"
    print(f"model {model} on {name}/{scheme}: {which}, each by its checkpoint, out-of-fold")
    print(f"truth: {found.source}")
    for start in range(0, len(cards), COLUMNS):
        print()
        print_table(table_of(cards[start : start + COLUMNS]))
    for one in cards:
        if one.note:
            print(f"  {one.value}: {one.note}")
    print("\n" + LEGEND.format(side=found.side, **cuts.words))
    path = paths.localisation_csv(name, scheme, model)
    head = {"data": name, "name": model, "folds": " ".join(map(str, folds))}
    write_csv(path, records(cards, cuts, head | {"source": found.source}))
    title = f"{model} on {name}/{scheme}"
    picture = paths.localisation_png(name, scheme, model)
    draw_localised(found, title, picture, dataset.labels.names)
    print(f"\nscores: {path}\npicture: {picture}")


def _check_flags(arguments: Namespace) -> None:
    if arguments.by != "mask":  # then --blends led here
        place = f", in place of --by {arguments.by}" if arguments.by else ""
        raise UserError(
            f"--blends makes the blends that --by mask is scored on: add --by mask{place}"
        )
    flags = {
        "--recipe": arguments.recipe is not None,  # only a net shows maps
        "--only": arguments.only is not None,
        "--versus": arguments.versus is not None,
        "--from": arguments.source is not None,
        "--split": arguments.split is not None,
    }
    for flag, given in flags.items():
        if given:
            raise UserError(
                f"{flag} does not fit: where pixels were changed is scored of a model's own "
                "held-out items: --model NAME --by mask [--blends] [--folds K]"
            )


def run_submit_log(arguments: Namespace) -> None:
    """Add a submission where one is named, and print the book."""
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


main = partial(parsers.main, "report")
