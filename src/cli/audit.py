"""`python -m src data --audit` and `--adversarial`: do files alone tell the label, or the split?"""

import pandas as pd

from src import paths
from src.artifacts.label_names import DEFAULT
from src.data.audit.adversarial import Adversarial, adversarial_validation, write_adversarial
from src.data.audit.metadata import Audit, AuditPart, Tell, audit_dataset, write_audit
from src.data.audit.trees import number
from src.data.items.manifest import Dataset

SHOWN = 8
EXTREMES = 5
# An AUC up to here, though more than chance, moves few items by much.
SLIGHT = 0.6
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


def print_audit(dataset: Dataset) -> None:
    """Run the audit, print what gives labels away with a remedy, and write the fields."""
    audit = audit_dataset(dataset)
    path = paths.audit_csv(dataset.name)
    write_audit(path, audit)
    for line in describe(audit, dataset.labels.names):
        print(line)
    print(f"the fields of every item looked at: {path}")


def describe(audit: Audit, names: tuple[str, str] = DEFAULT) -> list[str]:
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


def verdict(audit: Audit) -> list[str]:
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


def remedy_quality(table: pd.DataFrame) -> int:
    """Return a quality that few files are below: a higher one would leave their traces visible."""
    fields = [name for name in ("JPEG quality", "JPEG chroma quality") if name in table]
    known = [table[name][table[name] > 0] for name in fields]
    low = [values.quantile(0.05) for values in known if len(values)]
    return int(min(90, max(10, min(low)))) if low else 75


def _best(part: AuditPart) -> float:
    return max([part.auc, *(tell.auc for tell in part.tells)])


def _table(part: AuditPart, fake: str) -> list[str]:
    if not part.tells:
        return []
    lines = [f"{part.name + ', each field alone':<34} {'AUC':>5} {'95 %':>16}  {fake} where"]
    lines += [_row(tell, fake) for tell in part.tells[:SHOWN]]
    if len(part.tells) > SHOWN:
        lines.append(f"  and {len(part.tells) - SHOWN} more fields")
    return lines


def _row(tell: Tell, fake: str) -> str:
    low, high = tell.interval
    shares = f"{tell.inside:.0%} {fake} there, {tell.outside:.0%} elsewhere"
    return (
        f"  {tell.field.name:<32} {tell.auc:>5.3f} [{low:.3f}, {high:.3f}]  {tell.rule} ({shares})"
    )


def _medians(table: pd.DataFrame, names: tuple[str, str]) -> list[str]:
    lines = [f"{'median':<18} {names[0]:>12} {names[1]:>12}"]
    for name in MEDIANS:
        known = table[table[name] >= 0]
        medians = known.groupby("label")[name].median()
        if len(medians) == 2 and medians[0] != medians[1]:
            lines.append(f"  {name:<16} {number(medians[0]):>12} {number(medians[1]):>12}")
    return lines if len(lines) > 1 else []


def print_adversarial(dataset: Dataset) -> None:
    """Run adversarial validation, print what gives a split away and write P(test) by item."""
    found = adversarial_validation(dataset)
    path = paths.adversarial_csv(dataset.name)
    write_adversarial(path, found)
    drawn = ", ".join(
        f"{used} of {total} {split}" if used < total else f"all {total} {split}"
        for split, (used, total) in found.counts.items()
    )
    print(f"adversarial validation on {drawn} items in {found.groups} groups (copies together)")
    low, high = found.interval
    print(
        f"AUC of train against test {found.auc:.3f} [{low:.3f}, {high:.3f}] "
        f"(file traits alone {found.file_auc:.3f}, pixel traits alone {found.pixel_auc:.3f})"
    )
    if found.chance is None or found.chance_interval is None:
        print("to compare: nothing, the train items form too few groups for two halves")
    else:
        low, high = found.chance_interval
        print(
            f"to compare: train items in place of the test items {found.chance:.3f} "
            f"[{low:.3f}, {high:.3f}]"
        )
    print(verdict_on_splits(found))
    print(f"{'what gives it away':<26} {'AUC lost without':>16} {'AUC alone':>10}")
    for tell in found.tells[:SHOWN]:
        print(f"{tell.name:<26} {tell.drop:>16.3f} {tell.alone:>10.3f}")
    _print_extremes(found)
    print(f"P(test) of every item looked at: {path}")


def verdict_on_splits(found: Adversarial) -> str:
    """Say in one sentence how to read the AUC."""
    upper = 0.5 if found.chance_interval is None else found.chance_interval[1]
    if found.interval[0] <= max(0.5, upper):
        return (
            "no more than chance: by these traits, a cross-validated score speaks for the test "
            "items"
        )
    if found.chance is None:
        return (
            "more than 0.5, and nothing to hold it against: groups of test items that nobody named "
            "could be all there is to it"
        )
    if found.auc < max(SLIGHT, found.chance + SLIGHT - 0.5):
        return "a slight difference: a cross-validated score nearly speaks for the test items"
    return (
        "the splits differ: a score on train items may not carry over. See below whether storage "
        "or content differs; drop or equalise a trait of storage (augmentation: jpeg, resize), and "
        "trust scores on the train items that look most like test items"
    )


def _print_extremes(found: Adversarial) -> None:
    for split, title, ascending in (
        ("train", "train items most like test items", False),
        ("train", "train items least like test items", True),
        ("test", "test items most easily told", False),
    ):
        part = found.table[found.table["split"] == split]
        part = part.sort_values("prob", ascending=ascending, kind="stable").head(EXTREMES)
        shown = zip(part["item_id"], part["prob"], strict=True)
        print(f"{title}: " + ", ".join(f"{item} ({prob:.2f})" for item, prob in shown))
