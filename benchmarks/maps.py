"""Do maps point to what was blended in, and does their check keep those that do.

    python -m benchmarks.maps --data NAME --net mobilenetv2_100 --weights FILE [--task patches]

Trains a net in a few CPU minutes on real faces of a data set with parts of themselves blended in
(`--task patches`: an ellipse anywhere; `blends`: eyes, nose or mouth) or another's pasted in
(`pasted`), then looks at 200 such pictures of other videos that it calls fake. A map is right where
its hottest pixel lies in the mask. The check is tried with three controls of equal area: the map's
own region moved, turned and mirrored (what `src/explain/checked.py` does), random cells of the
map's own grid, single pixels.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.maps_nets import NETS, auc_of, held_out, load, read_faces, save, train
from src.bootstrap import REPLICATES, interval
from src.explain.checked import BEATEN, DRAWS, LEAST, deleted, elsewhere, prepared
from src.explain.maps import MAPS, Pixels, kinds_for, logits_of, usual_kinds
from src.explain.overlay import HOTTEST, enlarged, hottest
from src.models.classifier import Classifier

ITEMS, AT_MOST = 200, 12  # blends that are looked at; drawn for each of them at most
CENTRE = 0.25  # sigma of the blob that knows nothing but the middle, as a share of the side
Mask = NDArray[np.bool_]
Rng = np.random.Generator
# (the map's hottest region, cells a side of the map, generator) -> a region of equal area
CONTROLS: dict[str, Callable[[Mask, int, Rng], Mask]] = {
    "moved": lambda region, _, rng: elsewhere(region, rng),
    "cells": lambda region, side, rng: hottest(
        enlarged(rng.random((side, side), np.float32), len(region))
    ),
    "pixels": lambda region, _, rng: rng.permutation(region.ravel()).reshape(region.shape),
}


def centre_blob(size: int) -> NDArray[np.float32]:
    """Return a map that is largest in the middle, whatever the picture."""
    place = (np.arange(size, dtype=np.float32) - (size - 1) / 2) / (CENTRE * size)
    return np.exp(-(place[:, None] ** 2 + place**2) / 2)


def iou(one: Mask, other: Mask) -> float:
    """Return the overlap of two regions, over what they cover together."""
    return float((one & other).sum() / (one | other).sum())


def of_map(where: NDArray[np.float32], mask: Mask) -> dict[str, float | bool]:
    """Return how far a map of 0 to 1 tells a mask, both (s, s)."""
    y, x = np.unravel_index(int(where.argmax()), where.shape)
    own = hottest(where, float(mask.mean()))
    return {
        "right": bool(mask[y, x]),
        "iou": iou(hottest(where), mask),
        "iou_own": iou(own, mask),
    }


def look(
    model: Classifier,
    asked: argparse.Namespace,
    pixels: Pixels,
    masks: NDArray[np.bool_],
) -> pd.DataFrame:
    """Return a row a blend and kind of map: how right it is, what its checks found."""
    net, controls = asked.net, {name: CONTROLS[name] for name in asked.controls}
    kinds = [kind for kind, why in kinds_for(model, net).items() if not why]
    towards = np.ones(len(pixels), np.float32)
    drawn = {kind: MAPS.get(kind)(model, net, pixels, towards) for kind in kinds}
    size = pixels.shape[1]
    drawn["centre"] = np.repeat(centre_blob(size)[None], len(pixels), 0)
    before, rows = logits_of(model, pixels), []
    for item, (picture, mask) in enumerate(zip(pixels, masks, strict=True)):
        ranks = _grid(drawn["occlusion"][item])
        for kind, maps in drawn.items():
            where, reason = prepared(maps[item], size)
            row: dict[str, object] = {"item": item, "kind": kind, "share": float(mask.mean())}
            if reason:
                rows.append(row | {"reason": reason, "right": False, "iou": 0.0, "iou_own": 0.0})
                continue
            region, rng = hottest(where), np.random.default_rng([asked.seed, item])
            side = min(maps[item].shape[0], 16)
            draws = [draw(region, side, rng) for draw in controls.values() for _ in range(DRAWS)]
            lost = before[item] - logits_of(model, deleted(picture, kind, [region, *draws]))
            row |= {"reason": "", "lost": lost[0], **of_map(where, mask)}
            row["agrees"] = float(spearmanr(_grid(maps[item]), ranks).statistic)
            for place, name in enumerate(controls):
                own = lost[1 + place * DRAWS :][:DRAWS]
                row |= {f"beats_{name}": int((own < lost[0]).sum()), f"random_{name}": own.mean()}
            rows.append(row)
    return pd.DataFrame(rows)


def _grid(one: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map as 64 numbers, of 8 x 8 cells."""
    given = torch.from_numpy(np.ascontiguousarray(one, np.float32))[None, None]
    if one.shape[0] < 8:
        return torch.nn.functional.interpolate(given, (8, 8), mode="bilinear").numpy().ravel()
    return torch.nn.functional.adaptive_avg_pool2d(given, 8).numpy().ravel()


def kept(rows: pd.DataFrame, control: str = "moved", beaten: int = BEATEN) -> pd.Series:
    """Return which maps a rule keeps."""
    return (rows["reason"] == "") & (rows["lost"] >= LEAST) & (rows[f"beats_{control}"] >= beaten)


def report(rows: pd.DataFrame, controls: Sequence[str], usual: Sequence[str]) -> None:
    """Print the tables, then whether the check keeps maps that are right more often."""
    print("\n| map | right | IoU of 20 % | IoU of the mask's area | withheld | right: kept | "
          "right: withheld | kept - withheld, 95 % | logit lost | of moved | agrees with occlusion "
          "|\n|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for kind, own in rows.groupby("kind", sort=False):
        keep = kept(own)
        print(f"| {kind} | {own['right'].mean():.2f} | {own['iou'].mean():.3f} | "
              f"{own['iou_own'].mean():.3f} | {1 - keep.mean():.2f} | {_share(own[keep])} | "
              f"{_share(own[~keep])} | {compared(own, keep)} | {own['lost'].mean():.2f} | "
              f"{own['random_moved'].mean():.2f} | {own['agrees'].mean():.2f} |")  # fmt: skip
    share = rows["share"]
    best = np.minimum(share, HOTTEST) / np.maximum(share, HOTTEST)
    print(f"changed is {share.mean():.3f} of a picture, which a random pixel hits as often; the "
          f"best IoU that {HOTTEST:.0%} can have is {best.mean():.3f}")  # fmt: skip
    maps = rows[rows["kind"] != "centre"]
    print("\n| control | beaten of 16 | withheld | right: kept | right: withheld | IoU: kept | "
          "IoU: withheld |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for control in controls:
        for beaten in (9, 13, 15, 16):
            keep = kept(maps, control, beaten)
            print(f"| {control} | {beaten} | {1 - keep.mean():.2f} | {_share(maps[keep])} | "
                  f"{_share(maps[~keep])} | {maps['iou'][keep].mean():.3f} | "
                  f"{maps['iou'][~keep].mean():.3f} |")  # fmt: skip
    shown = maps[maps["kind"].isin(usual)]
    for of, own in ((f"usual kinds ({', '.join(usual)})", shown), ("all kinds", maps)):
        keep = kept(own)
        print(f"{of}: right, kept {_share(own[keep])}, withheld {_share(own[~keep])}, the "
              f"difference {compared(own, keep)}")  # fmt: skip


def compared(rows: pd.DataFrame, keep: pd.Series) -> str:
    """Say whether kept maps are right more often than withheld ones, with the 95 % interval.

    "ok" where the interval lies above 0, "short" where they are right no more often, "not shown"
    between. Drawn again are pictures, each with all of its maps.
    """
    right = rows["right"].astype(bool)
    parts = {"kept": keep, "kept_right": keep & right, "left": ~keep, "left_right": ~keep & right}
    each = pd.DataFrame(parts).groupby(rows["item"]).sum().to_numpy(float)
    if not keep.any() or keep.all():
        return "short: none to compare with"
    size = len(each)
    counts = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), REPLICATES)
    found = np.vstack([each.sum(0), counts @ each])
    with np.errstate(invalid="ignore"):  # a draw in which none is withheld has no difference
        gaps = found[:, 1] / found[:, 0] - found[:, 3] / found[:, 2]
    low, high = interval(gaps[1:])
    word = "ok" if low > 0 else "short" if gaps[0] <= 0 else "not shown"
    return f"{word}: {gaps[0]:.2f} [{low:.2f}, {high:.2f}]"


def _share(rows: pd.DataFrame) -> str:
    return f"{rows['right'].mean():.2f} ({len(rows)})" if len(rows) else "- (0)"


def main() -> None:
    """Train (or read) a net, look at blends that it calls fake, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a data set of face crops")
    parser.add_argument("--task", choices=["patches", "pasted", "blends"], default="patches")
    parser.add_argument("--net", choices=list(NETS), default="mobilenetv2_100")
    parser.add_argument("--weights", type=Path, help="what the net starts from")
    parser.add_argument("--keep", type=Path, help="a file for the net: read where it is there")
    parser.add_argument("--table", type=Path, help="a CSV for a row a map")
    parser.add_argument("--faces", type=int, default=1200)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--controls", nargs="+", choices=list(CONTROLS), default=list(CONTROLS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(asked, flush=True)
    faces = read_faces(asked)
    print(f"{len(faces.train)} faces to train on, {len(faces.test)} to look at", flush=True)
    if asked.keep is not None and asked.keep.is_file():
        model = load(asked, asked.keep)
    else:
        model = train(asked, faces)
        if asked.keep is not None:
            save(asked.keep, model)
    found: list[tuple[Pixels, Mask]] = []
    reals, fakes, masks = held_out(asked, faces, asked.items * AT_MOST)
    part = slice(None, 400)
    real, fake = logits_of(model, reals[part]), logits_of(model, fakes[part])
    print(f"AUC {auc_of(real, fake):.3f}; fakes called fake {(fake > 0).mean():.2f}, reals called "
          f"real {(real <= 0).mean():.2f}", flush=True)  # fmt: skip
    for picture, mask in zip(fakes, masks, strict=True):
        if len(found) < asked.items and logits_of(model, picture[None])[0] > 0:
            found.append((picture, mask))
    print(f"{len(found)} blends that are called fake are looked at", flush=True)
    pixels, truth = np.stack([one for one, _ in found]), np.stack([one for _, one in found])
    rows = look(model, asked, pixels, truth)
    if asked.table is not None:
        rows.to_csv(asked.table, index=False)
    report(rows, asked.controls, usual_kinds(model, asked.net))


if __name__ == "__main__":
    main()
