"""`python -m src data --audit`: do files alone, never decoded, tell the label?"""

from typing import TYPE_CHECKING

from src import paths
from src.artifacts.label_names import DEFAULT

if TYPE_CHECKING:
    import pandas as pd

    from src.data.audit.metadata import Audit, Part, Tell
    from src.data.items.manifest import Dataset

SHOWN = 8
MEDIANS = ("bytes", "bytes per pixel", "width", "height", "frames", "seconds", "kbit a second")
REMEDIES = {
    "storage": (
        "size of the file, format, compression: store every picture alike before it is used: "
        "train_folds.py --model M --set input.reencode={q} --as M_q{q} (docs/audit.md says what "
        "that leaves)"
    ),
    "shape": (
        "width, height, aspect: a net sees one size, but how far a picture was scaled stays "
        "visible; resize and crop at random in training (augment: robust or crop_zoom)"
    ),
    "clip": (
        "length and rate of clips: a net sees single frames and never this; keep it out of rules "
        "of your own"
    ),
    "label": (
        "names and notes in files: no net sees them, so no score rests on them; but the classes "
        "came by different ways, so look for traces of these in the pixels (src report M)"
    ),
}  # fmt: skip


def print_audit(dataset: "Dataset") -> None:
    """Run the audit, print what gives labels away with a remedy, and write the fields."""
    from src.data.audit.metadata import audit_dataset, write_audit

    audit = audit_dataset(dataset)
    path = paths.audit_csv(dataset.name)
    write_audit(path, audit)
    for line in describe(audit, dataset.labels.names):
        print(line)
    print(f"the fields of every item looked at: {path}")


def describe(audit: "Audit", names: tuple[str, str] = DEFAULT) -> list[str]:
    """Return the report of an audit as lines; `names` are those of label 0 and label 1."""
    real, fake = names
    every = audit.parts[0]
    drawn = "" if len(audit.table) + audit.unreadable == audit.total else f" of {audit.total:,}"
    lines = [
        f"metadata audit of {every.items:,}{drawn} train items ({every.items - every.fakes:,} "
        f"{real}, {every.fakes:,} {fake}) in {every.groups:,} groups"
    ]
    if audit.unreadable:
        lines.append(f"left aside: {audit.unreadable} whose header cannot be read")
    if not audit.named:
        lines.append(
            "no groups are named: each item counts as one of its own, and where items are frames "
            "of a few clips these figures are too high"
        )
    lines.append("a tree of depth 3 on all fields, on groups it has not seen:")
    for part in audit.parts:
        if part.unjudged:
            lines.append(f"  {part.name}: not judged ({part.unjudged})")
        else:
            low, high = part.interval
            lines.append(f"  {part.name}: AUC {part.auc:.3f} [{low:.3f}, {high:.3f}]")
            lines += [f"    {fake} where {rule}" for rule in part.rules[:3] if part.found]
    for part in audit.parts:
        lines += _table(part, fake)
    if every.unjudged:
        lines += _medians(audit.table, names)
    return [*lines, *verdict(audit)]


def verdict(audit: "Audit") -> list[str]:
    """Say in one line what was found, and in one line each what to do about it."""
    judged = [part for part in audit.parts if not part.unjudged]
    if not judged:
        return ["verdict: none; so few files cannot show what tells the label"]
    found = [part for part in judged if part.found]
    if not found:
        return [
            "verdict: nothing found above .55: neither the tree nor a field alone surely tells "
            "the label"
        ]
    best = max(found, key=_best)
    where = "" if best is audit.parts[0] else f" ({best.name})"
    named = ", ".join(tell.field.name for tell in best.tells[:3]) or "several fields together"
    area = f"{_best(best):.2f}".removeprefix("0")
    quality = remedy_quality(audit.table)
    families = dict.fromkeys(tell.field.family for part in found for tell in part.tells)
    return [
        f"verdict: metadata alone tell the label with AUC {area}{where}: {named}",
        *(f"remedy: {REMEDIES[family].format(q=quality)}" for family in families or ["storage"]),
    ]


def remedy_quality(table: "pd.DataFrame") -> int:
    """Return a quality that few files are below: a higher one would leave their traces visible."""
    fields = [name for name in ("JPEG quality", "JPEG chroma quality") if name in table]
    known = [table[name][table[name] > 0] for name in fields]
    low = [values.quantile(0.05) for values in known if len(values)]
    return int(min(90, max(10, min(low)))) if low else 75


def _best(part: "Part") -> float:
    return max([part.auc, *(tell.auc for tell in part.tells)])


def _table(part: "Part", fake: str) -> list[str]:
    if not part.tells:
        return []
    lines = [f"{part.name + ', each field alone':<34} {'AUC':>5} {'95 %':>16}  {fake} where"]
    lines += [_row(tell, fake) for tell in part.tells[:SHOWN]]
    if len(part.tells) > SHOWN:
        lines.append(f"  and {len(part.tells) - SHOWN} more fields")
    return lines


def _row(tell: "Tell", fake: str) -> str:
    low, high = tell.interval
    shares = f"{tell.inside:.0%} {fake} there, {tell.outside:.0%} elsewhere"
    return (
        f"  {tell.field.name:<32} {tell.auc:>5.3f} [{low:.3f}, {high:.3f}]  {tell.rule} ({shares})"
    )


def _medians(table: "pd.DataFrame", names: tuple[str, str]) -> list[str]:
    from src.data.audit.trees import number

    lines = [f"{'median':<18} {names[0]:>12} {names[1]:>12}"]
    for name in MEDIANS:
        known = table[table[name] >= 0]
        medians = known.groupby("label")[name].median()
        if len(medians) == 2 and medians[0] != medians[1]:
            lines.append(f"  {name:<16} {number(medians[0]):>12} {number(medians[1]):>12}")
    return lines if len(lines) > 1 else []
