"""`python -m src data`: what was understood of a data set, before anything is trained.

What `python -m src data` prints of clips.
"""

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.cli.common import Parser, add_data_arguments, choose_dataset, run_command, show_log
from src.cli.folds import print_excluded, print_groups
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from src.data.items.manifest import Dataset

DESCRIPTION = """Say what was understood of a data set: labels, groups, sizes, copies, bad files.

  python -m src data                 the one data set in input/
  python -m src data --data cifake   that one
  python -m src data --adversarial   can a small model tell train items from test items? If it
                                     can, a cross-validated score may not hold on the test items
  python -m src data --audit         do files alone (size, JPEG tables, codec, name ...) tell the
                                     label? By which fields, and what helps
  python -m src data --data B --from A   how many items of B are copies of A's or of its videos, so
                                     that no model trained on A is scored on them
  python -m src data --preview effnet_b0   a picture of what that model's net sees of some training
                                           items: the canvas, the evaluation view, augmented draws

Every image and clip is decoded once; the answer is remembered in .cache/manifest/."""


if TYPE_CHECKING:
    import pandas as pd


def print_clips(scan: "pd.DataFrame") -> None:
    """Print frame rate, duration, frames and codecs of a scan's clips.

    Args:
        scan: see `scan_items`.
    """
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


def print_notes(scan: "pd.DataFrame") -> None:
    """Print the files that can be read, and about which something is odd."""
    odd = scan[scan["note"] != ""]
    some = odd.head(10)
    for item_id, split, note in zip(some["item_id"], some["split"], some["note"], strict=True):
        print(f"WARNING {split} item {item_id}: {note}")
    if len(odd) > 10:
        print(f"  ... and {len(odd) - 10} more like these")


def _row(name: str, values: "pd.Series") -> tuple[str, ...]:
    limits = (values.min(), values.median(), values.max())
    return name, *(f"{round(float(value), 2):g}" for value in limits)


def make_parser() -> Parser:
    """Return the parser of `python -m src data`."""
    parser = Parser(DESCRIPTION, prog="python -m src data")
    add_data_arguments(parser)
    parser.add_argument(
        "--adversarial", action="store_true", help="compare train with test instead of reporting"
    )
    parser.add_argument(
        "--audit", action="store_true", help="do files alone, never decoded, tell the label?"
    )
    parser.add_argument(
        "--from", dest="source", metavar="A", help="what would a model trained on A have seen?"
    )
    parser.add_argument(
        "--preview", metavar="MODEL", help="draw training items as a model's net sees them"
    )
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
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
        from src.config import read_model

        read_model(arguments.preview)  # a typo answers before anything heavy is loaded
    name = choose_dataset(arguments.data, arguments.input_root)
    show_log()
    from src.data.items.manifest import refuse_missing
    from src.data.layouts.load import load_dataset

    dataset = load_dataset(name, arguments.input_root)
    _print_layout(dataset)
    if several:
        refuse_missing(dataset)
    if arguments.source is not None:
        _print_seen(dataset, arguments.source, arguments)
        return
    if arguments.audit:
        from src.cli.printing.audit import print_audit

        print_audit(dataset)
        return
    if arguments.adversarial:
        from src.cli.printing.adversarial import print_adversarial

        print_adversarial(dataset)
        return
    if arguments.preview is not None:
        _draw_preview(dataset, arguments.preview)
        return
    _print_counts(dataset)
    if dataset.missing:
        _print_missing(dataset)
        return
    from src.data.folds.scan import scan_items

    scan = scan_items(dataset)
    _print_files(dataset, scan)
    _print_copies(dataset, scan)
    _print_next(dataset, arguments.scheme)


def _print_seen(dataset: "Dataset", source: str, arguments: Namespace) -> None:
    """Say which labelled items a model trained on another data set could not be scored on."""
    from src.artifacts.folds import existing_scheme
    from src.inference.cross_dataset import (
        check_parts,
        labelled_items,
        leave_out_seen,
        trained_ids,
    )

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


def _draw_preview(dataset: "Dataset", model: str) -> None:
    from src.config import read_model
    from src.reporting.contact_sheets import draw_preview

    print(f"preview: {draw_preview(model, read_model(model), dataset)}")


def _print_layout(dataset: "Dataset") -> None:
    print(f"{dataset.name}: {dataset.root}")
    sources = dataset.items["path"].str.extract(r"^(.*?\.zip)!/", expand=False).fillna("folders")
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


def _print_missing(dataset: "Dataset") -> None:
    print(f"WARNING {len(dataset.missing)} of {len(dataset.items)} files are not there:")
    for path in dataset.missing[:10]:
        print(f"  {path}")
    if len(dataset.missing) > 10:
        print(f"  ... and {len(dataset.missing) - 10} more")
    from src.data.items.manifest import ways_to_files

    print(f"nothing is trained until they are: {ways_to_files(dataset)}")


def _print_counts(dataset: "Dataset") -> None:
    import pandas as pd

    items = dataset.items
    names = items["label"].map(dict(enumerate(dataset.labels.names))).astype("object").fillna("?")
    table = items.assign(label=names).groupby(["split", "label", "kind"], sort=False)
    wide = max(6, *map(len, dataset.labels.names))
    print(f"{'split':<6} {'label':<{wide}} {'kind':<6} {'items':>8} {'given groups':>13} {'MB':>8}")
    for (split, label, kind), part in table:
        groups = part.loc[part["group"] != "", "group"].nunique()
        size = part["bytes"].sum() / 1e6
        print(f"{split:<6} {label:<{wide}} {kind:<6} {len(part):>8} {groups:>13} {size:>8.1f}")
    domains = pd.crosstab(items["domain"], names)
    if len(domains) > 1 or "" not in domains.index:
        print("by domain:")
        for domain, row in domains.head(20).iterrows():
            print(f"  {domain or '(none)'}: " + ", ".join(f"{n} {k}" for k, n in row.items() if n))
        if len(domains) > 20:
            print(f"  ... and {len(domains) - 20} more")


def _print_files(dataset: "Dataset", scan: "pd.DataFrame") -> None:

    print_clips(scan)
    print_notes(scan)
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
    _print_shortcuts(dataset, scan)


def _print_bad(scan: "pd.DataFrame") -> None:
    bad = scan[scan["error"] != ""]
    train = bad[bad["split"] == "train"]
    print_excluded(train["item_id"].tolist(), train["error"].tolist())
    test = bad[bad["split"] == "test"]
    if len(test):
        print(f"unreadable test items: {len(test)} (they get a stated fallback)")
        for item_id, error in list(zip(test["item_id"], test["error"], strict=True))[:10]:
            print(f"  {item_id}: {error}")


def _print_shortcuts(dataset: "Dataset", scan: "pd.DataFrame") -> None:
    """Warn where the file alone, without its pixels, tells the label."""
    from src.data.audit.metadata import find_shortcuts

    for shortcut in find_shortcuts(dataset, scan):
        print(
            f"WARNING {shortcut.name} alone tells the label: AUC {shortcut.auc:.3f}; a model can "
            "learn that instead of the pictures"
        )


def _print_copies(dataset: "Dataset", scan: "pd.DataFrame") -> None:
    from src.data.folds.fold_report import report_copies

    report = report_copies(dataset, scan)
    if report is not None:
        print_groups(report)


def _print_next(dataset: "Dataset", scheme: str | None) -> None:
    from src.data.folds.schemes import default_scheme

    flag = f" --data {dataset.name}"
    print(f"next: python -m src folds{flag}   ({scheme or default_scheme(dataset)})")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src data`; returns the exit code."""
    return run_command(_run, argv)
