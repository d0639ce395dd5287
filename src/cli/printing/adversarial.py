"""`python -m src data --adversarial`: can a small model tell train items from test items?"""

from typing import TYPE_CHECKING

from src import paths

if TYPE_CHECKING:
    from src.data.audit.adversarial import Adversarial
    from src.data.items.manifest import Dataset

SHOWN = 8
EXTREMES = 5
# An AUC up to here, though more than chance, moves few items by much.
SLIGHT = 0.6


def print_adversarial(dataset: "Dataset") -> None:
    """Run adversarial validation, print what gives a split away and write P(test) by item."""
    from src.data.audit.adversarial import adversarial_validation, write_adversarial

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
    print(verdict(found))
    print(f"{'what gives it away':<26} {'AUC lost without':>16} {'AUC alone':>10}")
    for tell in found.tells[:SHOWN]:
        print(f"{tell.name:<26} {tell.drop:>16.3f} {tell.alone:>10.3f}")
    _print_extremes(found)
    print(f"P(test) of every item looked at: {path}")


def verdict(found: "Adversarial") -> str:
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


def _print_extremes(found: "Adversarial") -> None:
    for split, title, ascending in (
        ("train", "train items most like test items", False),
        ("train", "train items least like test items", True),
        ("test", "test items most easily told", False),
    ):
        part = found.table[found.table["split"] == split]
        part = part.sort_values("prob", ascending=ascending, kind="stable").head(EXTREMES)
        shown = zip(part["item_id"], part["prob"], strict=True)
        print(f"{title}: " + ", ".join(f"{item} ({prob:.2f})" for item, prob in shown))
