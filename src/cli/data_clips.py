"""What `python -m src data` prints of clips."""

from typing import TYPE_CHECKING

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
