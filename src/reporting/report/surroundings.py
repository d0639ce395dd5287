"""What a data set itself says: its folds and what plain ones would leak, what files give away."""

import math
import shlex

import pandas as pd

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.folds import read_folds
from src.data.audit.fields import FIELDS
from src.data.audit.metadata import Audit, AuditPart
from src.data.folds.fold_report import FoldReport, report_folds
from src.data.folds.scan import known_scan
from src.data.folds.schemes import is_scanned
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.reporting.report.blocks import Block, Cell, Grid, Missing, Words

MOST_TELLS, MOST_EXCLUDED = 12, 10
FAMILIES = {
    "storage": "how pixels were stored", "shape": "size and shape", "clip": "length and rate",
    "label": "names and notes, which no net sees",
}  # fmt: skip


def fold_blocks(dataset: Dataset | None, name: str, scheme: str) -> list[Block]:
    """Return the folds, what they left out, and what plain folds would have leaked."""
    table = read_folds(paths.readable(paths.folds_csv(name, scheme)))
    home = paths.cost_csv(name, scheme).parent
    sizes = table.groupby("fold").agg(
        items=("label", "size"), fakes=("label", "sum"), groups=("group", "nunique")
    )
    sizes = sizes.reset_index()
    path = home / "folds.csv"
    write_csv(path, sizes)
    lines = [
        [f"{fold}" if fold >= 0 else "always trained on", f"{items:,}",
         Cell(f"{fakes:,} ({fakes / items:.1%})", share=fakes / items), f"{groups:,}"]
        for fold, items, fakes, groups in sizes.itertuples(index=False)
    ]  # fmt: skip
    blocks: list[Block] = [Grid(["fold", "items", "fakes", "groups"], lines, path)]
    command = f"python -m src folds --data {shlex.quote(name)} --scheme {scheme}"
    if dataset is None:
        return [*blocks, Missing("Copies and leaks want the files of the data set:", command)]
    if is_scanned(scheme) and known_scan(dataset) is None:
        text = "Copies and leaks want every file opened, which was not done here yet:"
        return [*blocks, Missing(text, command)]
    try:
        report = report_folds(dataset, scheme, table)
    except UserError as error:  # a scheme of no form that is known: its folds were brought
        return [*blocks, Missing(f"Copies and leaks are not known: {error}")]
    return [*blocks, *_leaks(report)]


def _leaks(report: FoldReport) -> list[Block]:
    found = report.groups
    blocks: list[Block] = []
    words = (
        f"{found.groups:,} groups of {found.items:,} train items, the largest of "
        f"{found.largest:,}; {found.exact_items:,} items have an equal file, {found.near_items:,} "
        f"look like another one ({found.near_conflicts:,} pairs of a real and a fake)."
    )
    blocks.append(Words(words))
    if found.test_items:
        blocks.append(Words(
            f"Test items whose file is in train: {found.test_exact:,}; that look like a train "
            f"item: {found.test_near:,}."
        ))  # fmt: skip
    rows = [
        [leak.reason, f"{leak.items:,}", Cell(f"{leak.share:.2%}", share=leak.share)]
        for leak in report.leaks
    ]
    head = [f"{report.plain} would have leaked", "items", "share of train items"]
    blocks.append(Grid(head, rows, note="Items with a relative in another fold."))
    if len(report.excluded):
        shown = report.excluded.head(MOST_EXCLUDED)
        lines = [[str(r.item_id), str(r.reason)] for r in shown.itertuples()]
        more = len(report.excluded) - len(shown)
        note = f"{more:,} more in {report.path.stem}.excluded.csv." if more > 0 else ""
        blocks.append(Words(f"Items left out of training: {len(report.excluded):,}."))
        blocks.append(Grid(["item", "why"], lines, note=note))
    return [*blocks, *(Words(warning) for warning in report.warnings)]


def audit_blocks(audit: Audit, name: str, names: tuple[str, str]) -> list[Block]:
    """Return what headers alone give away of the label: what a net can see first, names last."""
    every = audit.parts[0]
    looked = len(audit.table)
    blocks: list[Block] = []
    text = (
        f"A small tree on the headers of {looked:,} of {audit.total:,} train items, judged on "
        "groups that it has not seen. The nearer to 0.5, the less the files alone tell."
    )
    blocks.append(Words(text, soft=True))
    lines = []
    for part in audit.parts:
        area = f"not judged: {part.unjudged}"
        if not part.unjudged:
            area = f"{part.auc:.3f} [{part.interval[0]:.3f}, {part.interval[1]:.3f}]"
        lines.append([part.name, f"{part.items:,}", f"{part.fakes:,}", area])
    blocks.append(Grid(["by all fields together", "items", names[1], "AUC [95 %]"], lines))
    table = tell_table(every)
    if table.empty:
        blocks.append(Words("No field alone surely tells the label."))
    else:
        path = paths.audit_csv(name).with_name("audit_fields.csv")
        write_csv(path, table)
        rows = [
            [row["field"], FAMILIES[row["family"]],
             f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
             f"{names[1]} where {row['rule']}", f"{row['inside']:.0%} there, "
             f"{row['outside']:.0%} elsewhere"]
            for row in table.head(MOST_TELLS).to_dict("records")
        ]  # fmt: skip
        head = ["field alone", "what it is of", "AUC [95 %]", "rule", f"share of {names[1]}"]
        blocks.append(Grid(head, rows, path))
    command = f"python -m src data --data {shlex.quote(name)} --audit"
    if looked + audit.unreadable < audit.total:
        blocks.append(Missing("More files, domains and remedies:", command))
    else:
        blocks.append(Missing("With remedies:", command))
    return blocks


def tell_table(part: AuditPart) -> pd.DataFrame:
    """Return `field, family, auc, low, high, rule, inside, outside` of fields that tell the label.

    In the order of what a net can see of them, then by AUC.
    """
    order = list(FAMILIES)
    assert {field.family for field in FIELDS} <= set(order)
    tells = sorted(part.tells, key=lambda one: (order.index(one.field.family), -one.auc))
    return pd.DataFrame(
        [
            (one.field.name, one.field.family, one.auc, *one.interval, one.rule, one.inside,
             one.outside if math.isfinite(one.outside) else 0.0)
            for one in tells
        ],
        columns=pd.Index(["field", "family", "auc", "low", "high", "rule", "inside", "outside"]),
    )  # fmt: skip
