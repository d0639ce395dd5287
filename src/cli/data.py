"""`python -m src data`: what was understood of a data set, before anything is trained."""

from argparse import Namespace
from collections.abc import Iterator
from functools import partial

import pandas as pd

from src.artifacts.folds import existing_scheme
from src.cli import parsers
from src.cli.audit import print_adversarial, print_audit
from src.cli.common import choose_dataset, print_first, show_log
from src.cli.folds import print_excluded, print_groups
from src.config import read_model
from src.data.audit.metadata import find_shortcuts
from src.data.folds.fold_report import report_copies
from src.data.folds.scan import scan_items
from src.data.folds.schemes import default_scheme
from src.data.items.kept_manifest import forget
from src.data.items.manifest import Dataset, refuse_missing, ways_to_files
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.inference.cross_dataset import check_parts, labelled_items, leave_out_seen, trained_ids


def _print_clips(scan: pd.DataFrame) -> None:
    """Print frame rate, duration, frames and codecs of a scan's clips (see `scan_items`)."""
    clips = scan[(scan["format"] == "video") & (scan["error"] == "")]
    clips = clips[(clips["codec"] != "") | (clips["fps"] > 0)]  # else an image named like one
    if clips.empty:
        return
    print(f"clips: {len(clips)} can be read")
    header = ("", "min", "median", "max")
    rows = [
        _row("frames a second", clips["fps"]),
        _row("seconds", clips["duration"]),
        _row("frames", clips["frames"]),
        _row("width", clips["width"]),
        _row("height", clips["height"]),
    ]
    for name, *values in [header, *rows]:
        print(f"  {name:<16}" + "".join(f"{value:>9}" for value in values))
    codecs = clips["codec"].replace("", "?").value_counts()
    print("  codec: " + ", ".join(f"{name} {count}" for name, count in codecs.items()))


def _print_notes(scan: pd.DataFrame) -> None:
    """Print the files that can be read, and about which something is odd."""
    odd = scan[scan["note"] != ""]
    rows = zip(odd["split"], odd["item_id"], odd["note"], strict=True)
    print_first(
        [f"WARNING {split} item {item}: {note}" for split, item, note in rows],
        " like these",
        indent="",
    )


def _row(name: str, values: pd.Series) -> tuple[str, ...]:
    limits = (values.min(), values.median(), values.max())
    return name, *(f"{round(float(value), 2):g}" for value in limits)


def run_data(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    asked = {
        "--audit": arguments.audit,
        "--adversarial": arguments.adversarial,
        "--from": arguments.source is not None,
        "--preview": arguments.preview is not None,
    }
    several = [flag for flag, given in asked.items() if given]
    if len(several) > 1:
        number = ("two", "three", "four")[len(several) - 2]
        raise UserError(f"{' and '.join(several)} are {number} commands; type one of them")
    if arguments.preview is not None:
        read_model(arguments.preview)  # a typo answers before anything heavy is loaded
    name = choose_dataset(arguments.data, arguments.input_root)
    show_log()
    if arguments.rescan:
        forget(name)
    dataset = load_dataset(name, arguments.input_root)
    _print_layout(dataset)
    if several:
        refuse_missing(dataset)
    if arguments.source is not None:
        _print_seen(dataset, arguments.source, arguments)
    elif arguments.audit:
        print_audit(dataset)
    elif arguments.adversarial:
        print_adversarial(dataset)
    elif arguments.preview is not None:
        from src.reporting.contact_sheets import draw_preview  # torch, which the rest does not need

        model = arguments.preview
        print(f"preview: {draw_preview(model, read_model(model), dataset)}")
    else:
        _print_counts(dataset)
        _print_contents(dataset, arguments.scheme)


def _print_seen(dataset: Dataset, source: str, arguments: Namespace) -> None:
    """Say which labelled items a model trained on another data set could not be scored on."""
    if choose_dataset(source, arguments.input_root) == dataset.name:
        raise UserError(f"--from {source} and --data {source} are one data set: drop --from")
    check_parts(source, dataset, arguments.input_root)
    scheme = arguments.scheme or existing_scheme(source, None)
    found = labelled_items(dataset)
    ids = trained_ids(source, scheme)
    kept = leave_out_seen(source, ids, dataset, found.table, arguments.input_root, scheme)
    print(
        f"{len(kept)} of {len(found.table)} labelled {found.split} items of {dataset.name} can be "
        f"scored by what is trained on {source} (evaluate --from {source})"
    )


def _print_layout(dataset: Dataset) -> None:
    print(f"{dataset.name}: {dataset.root}")
    inside = dataset.items["path"].str.extract(r"^(?:(.*?\.zip)|(.*?)[^/]*\.tar)!/")
    sources = inside[0].fillna(inside[1] + "shards").fillna("folders")
    for source, count in sources.value_counts(sort=False).items():
        print(f"  {source}: {count} items")
    for note in dataset.notes:
        print(f"  {note}")
    print(f"  labels: {dataset.labels.polarity}")
    if dataset.test_labels is not None:
        fakes, (real, fake) = int(dataset.test_labels.sum()), dataset.labels.names
        print(
            f"  the labels of the test items are here ({len(dataset.test_labels) - fakes} {real}, "
            f"{fakes} {fake}): kept apart, no prediction reads them"
        )
    for reason, count in dataset.ignored.items():
        print(f"  left aside: {count} x {reason}")


def by_class(dataset: Dataset) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield how the lines of a table of classes begin, and their items; head and all come first."""
    names = dict(enumerate(dataset.labels.names))
    labels = dataset.items["label"].map(names).astype("object").fillna("?")
    items = dataset.items.assign(label=labels)
    wide = max(6, *map(len, dataset.labels.names))
    yield f"{'split':<6} {'label':<{wide}} {'kind':<6}", items
    for (split, label, kind), part in items.groupby(["split", "label", "kind"], sort=False):
        yield f"{split:<6} {label:<{wide}} {kind:<6}", part


def _print_counts(dataset: Dataset) -> None:
    (head, items), *rows = by_class(dataset)
    print(f"{head} {'items':>8} {'given groups':>13} {'MB':>8}")
    for begin, part in rows:
        groups = part.loc[part["group"] != "", "group"].nunique()
        print(f"{begin} {len(part):>8} {groups:>13} {part['bytes'].sum() / 1e6:>8.1f}")
    domains = pd.crosstab(items["domain"], items["label"])
    if len(domains) > 1 or "" not in domains.index:
        print("by domain:")
        counts = (
            ", ".join(f"{n} {k}" for k, n in row.items() if n) for _, row in domains.iterrows()
        )
        named = zip(domains.index, counts, strict=True)
        print_first([f"{domain or '(none)'}: {count}" for domain, count in named], most=20)


def _print_contents(dataset: Dataset, scheme: str | None) -> None:
    """Print what opening every file shows, unless some of them are not there."""
    if dataset.missing:
        print(f"WARNING {len(dataset.missing)} of {len(dataset.items)} files are not there:")
        print_first(dataset.missing)
        print(f"nothing is trained until they are: {ways_to_files(dataset)}")
        return
    scan = scan_items(dataset)
    _print_files(dataset, scan)
    copies = report_copies(dataset, scan)
    if copies is not None:
        print_groups(copies)
    scheme = scheme or default_scheme(dataset)
    print(f"next: python -m src folds --data {dataset.name}   ({scheme})")


def _print_files(dataset: Dataset, scan: pd.DataFrame) -> None:
    _print_clips(scan)
    _print_notes(scan)
    _print_bad(scan)
    good = scan[(scan["error"] == "") & (scan["format"] != "video")]
    if good.empty:
        return
    sizes = good["width"].astype(str) + "x" + good["height"].astype(str)
    common = ", ".join(f"{size} ({n})" for size, n in sizes.value_counts().head(5).items())
    more = f" and {sizes.nunique() - 5} other sizes" if sizes.nunique() > 5 else ""
    formats = ", ".join(f"{kind} {n}" for kind, n in good["format"].value_counts().items())
    print(f"pixels (width x height): {common}{more}")
    print(f"formats: {formats}")
    for shortcut in find_shortcuts(dataset, scan):
        print(
            f"WARNING {shortcut.name} alone tells the label: AUC {shortcut.auc:.3f}; a model can "
            "learn that instead of the pictures"
        )


def _print_bad(scan: pd.DataFrame) -> None:
    bad = scan[scan["error"] != ""]
    train = bad[bad["split"] == "train"]
    print_excluded(train["item_id"].tolist(), train["error"].tolist())
    test = bad[bad["split"] == "test"]
    if len(test):
        print(f"unreadable test items: {len(test)} (they get a stated fallback)")
        print_first(
            [f"{item}: {why}" for item, why in zip(test["item_id"], test["error"], strict=True)][
                :10
            ]
        )


main = partial(parsers.main, "data")
