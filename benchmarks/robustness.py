"""What the robustness card costs beside one look at the same items as they are, in turns.

    python -m benchmarks.robustness --data NAME --model NAME [MODEL ...] [--items 400] [--rounds 3]

Both passes predict the first held-out items of fold 0 with every view of the models. Counted:
decoded files, pictures that go through a net, CPU seconds.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from src import paths
from src.artifacts.folds import existing_scheme, read_folds
from src.artifacts.oof import WHOLE_LEVEL, Levels, read_views
from src.artifacts.runs import check_checkpoint, read_run
from src.compute.clock import cpu_seconds
from src.compute.request import Compute
from src.data.layouts.load import load_dataset
from src.data.pixels import images, reader
from src.data.pixels.deliveries import CARD, HARD_REAL
from src.inference.passes import predict_parts
from src.inference.stored import ItemsToPredict, Part

MOST_DECODES, MOST_FORWARDS = 1.3, 16.0


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the files that are decoded."""
    calls, places = [0], ((images, "decode"), (reader, "decode"), (reader, "read_clip"))
    own = [getattr(*place) for place in places]

    def counting(decode: Callable[..., object]) -> Callable[..., object]:
        def one(*given: object, **more: object) -> object:
            calls[0] += 1
            return decode(*given, **more)

        return one

    try:
        for (module, name), decode in zip(places, own, strict=True):
            setattr(module, name, counting(decode))
        yield calls
    finally:
        for (module, name), decode in zip(places, own, strict=True):
            setattr(module, name, decode)


def main() -> None:
    """Print a row a pass, then whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    dataset, scheme = load_dataset(asked.data, None), existing_scheme(asked.data, None)
    assert scheme is not None
    table = read_folds(paths.folds_csv(asked.data, scheme))
    ids = table.loc[table["fold"] == 0, "item_id"].head(asked.items).tolist()
    place = dataset.items.set_index("item_id")["path"]
    items = ItemsToPredict(dataset.root, ids, place.loc[ids].tolist(), "benchmark")
    ways = {"as they are": None, "card": Levels((WHOLE_LEVEL, *CARD, HARD_REAL), 42)}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    seen: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for way, levels in ways.items():
                parts = []
                for model in asked.model:
                    record = read_run(asked.data, scheme, model, 0)
                    part = Part(model, 0, check_checkpoint(record), record["checkpoint_sha256"],
                                Path(folder) / f"{model}.{way}.parquet")  # fmt: skip
                    parts.append(replace(part, levels=levels))
                    part.views.unlink(missing_ok=True)
                began = cpu_seconds()
                with counted() as calls:
                    predict_parts(parts, items, Compute(precision="fp32", workers=0))
                cpu[way].append(cpu_seconds() - began)
                rows = sum(len(read_views(part.views)[0]) for part in parts)
                seen[way] = calls[0] / len(ids), rows / len(ids)
    print(f"{asked.data} {' '.join(asked.model)}: {len(ids)} items, fp32")
    print("| pass | decodes an item | forwards an item | CPU-s (median) |\n|---|---|---|---|")
    for way, (decodes, forwards) in seen.items():
        print(f"| {way} | {decodes:.2f} | {forwards:.0f} | {np.median(cpu[way]):.1f} |")
    looks = seen["card"][1] / seen["as they are"][1]
    ratio = np.array(cpu["card"]) / np.array(cpu["as they are"])
    print(f"CPU-s of the card over those of the clean pass: {np.median(ratio):.1f} "
          f"({ratio.min():.1f} to {ratio.max():.1f})")  # fmt: skip
    for name, value, most in (
        ("decodes an item", seen["card"][0], MOST_DECODES),
        ("forwards, in clean passes", looks, MOST_FORWARDS),
    ):
        print(f"{'ok' if value <= most else 'short'}: {name} {value:.2f}, target {most:g}")


if __name__ == "__main__":
    main()
