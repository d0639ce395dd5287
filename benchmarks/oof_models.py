"""Cheap, different models over 5 folds of real pictures: predictions to judge tuning on.

    python -m benchmarks.oof_models --input-root DIR --data cifake dfdc_faces

A quarter of the groups is held out from everything; the rest gets out-of-fold predictions of
eleven classifiers on about a hundred forensic features, the held-out part those of all five fold
models. `--tuned 1632` is a newcomer's small data set: that many rows get the folds, all others are
held out. Features and predictions are kept in .cache/benchmarks/.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import joblib
import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from src import paths
from src.data.folds.make import ensure_folds
from src.data.items.files import read_bytes
from src.data.layouts.load import load_dataset
from src.data.pixels.images import decode_image
from src.ensemble.predictions import Predictions

SIDE = 64  # a crop of the middle; features never see a resized pixel
FOLDS, HELD = 5, 4  # folds; one group in HELD is held out
EDGE = 1e-4


def _features(pixels: np.ndarray) -> np.ndarray:
    side = min(SIDE, *pixels.shape[:2]) // 8 * 8
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    crop = pixels[top : top + side, left : left + side].astype(np.float32)
    grey = crop.mean(axis=2)
    blocks = grey.reshape(side // 8, 8, side // 8, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    dct = np.log1p(np.mean([np.abs(cv2.dct(block)) for block in blocks], axis=0)).ravel()
    residual = grey - cv2.GaussianBlur(grey, (3, 3), 0)
    histogram = np.histogram(residual, bins=np.linspace(-12, 12, 17))[0] / residual.size
    colour = [crop.mean((0, 1)), crop.std((0, 1))]
    chroma = crop[..., 0] - crop[..., 1], crop[..., 2] - crop[..., 1]
    edges = [
        [c.std(), np.abs(np.diff(c, axis=0)).mean(), np.abs(np.diff(c)).mean()] for c in chroma
    ]
    return np.concatenate([dct, histogram, *colour, *edges]).astype(np.float32)


def _models(seed: int) -> dict[str, Callable[[], ClassifierMixin]]:
    scaled = StandardScaler
    return {
        "logistic": lambda: make_pipeline(scaled(), LogisticRegression(max_iter=300)),
        "logistic-dct": lambda: make_pipeline(scaled(), LogisticRegression(C=0.01, max_iter=300)),
        "lda": lambda: make_pipeline(scaled(), LinearDiscriminantAnalysis()),
        "naive-bayes": lambda: make_pipeline(scaled(), GaussianNB()),
        "quantile-bayes": lambda: make_pipeline(
            QuantileTransformer(output_distribution="normal", n_quantiles=100), GaussianNB()
        ),
        "boosting": lambda: HistGradientBoostingClassifier(max_iter=120, random_state=seed),
        "boosting-slow": lambda: HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.05, max_leaf_nodes=12, random_state=seed + 1
        ),
        "extra-trees": lambda: ExtraTreesClassifier(120, min_samples_leaf=2, random_state=seed),
        "forest": lambda: RandomForestClassifier(80, min_samples_leaf=2, random_state=seed),
        "mlp": lambda: make_pipeline(
            scaled(), MLPClassifier((64,), early_stopping=True, max_iter=60, random_state=seed)
        ),
        "neighbours": lambda: make_pipeline(scaled(), KNeighborsClassifier(25)),
    }


def _logit(model: ClassifierMixin, x: np.ndarray) -> np.ndarray:
    prob = np.clip(model.predict_proba(x)[:, 1], EDGE, 1 - EDGE)  # type: ignore[attr-defined]
    return np.log(prob) - np.log1p(-prob)


def load_features(name: str, input_root: Path | None, rows: int) -> pd.DataFrame:
    """Return `label`, `group` and the features of up to `rows` scored train items of a data set."""
    path = paths.cache_dir() / "benchmarks" / f"{name}.{rows}.features.parquet"
    if path.exists():
        return pd.read_parquet(path)
    dataset = load_dataset(name, input_root)
    _, folds, _ = ensure_folds(dataset, None)
    folds = folds[folds["fold"] >= 0].sample(frac=1, random_state=0)
    keep = folds[folds["group"].isin(folds["group"].unique()[: _groups_of(folds, rows)])]
    where = dataset.train.set_index("item_id")["path"]
    found = joblib.Parallel(n_jobs=2, prefer="threads")(
        joblib.delayed(lambda p: _features(decode_image(read_bytes(dataset.root, p))))(where[item])
        for item in keep["item_id"]
    )
    table = pd.DataFrame(np.stack(list(found))).add_prefix("f")
    table.insert(0, "group", keep["group"].to_numpy())
    table.insert(0, "label", keep["label"].to_numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path)
    return table


def _groups_of(folds: pd.DataFrame, rows: int) -> int:
    sizes = folds.groupby("group", sort=False).size()
    return int((sizes.cumsum() <= rows).sum())


def make_predictions(table: pd.DataFrame, seed: int, tuned: int | None) -> dict[str, np.ndarray]:
    """Fit all models; returns label, group, fold, logits of tuned rows and of held-out rows.

    `logits` is (n, models), `held_logits` (folds, n held out, models).
    """
    label, group = table["label"].to_numpy(), pd.factorize(table["group"])[0]
    x = table.filter(regex="^f").to_numpy()
    parts = HELD if tuned is None else len(table) // tuned
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    rest, held = next(splitter.split(x, label, group))
    if tuned is not None:
        rest, held = held, rest
    fold = np.empty(len(rest), dtype=np.int64)
    inner = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for k, (_, part) in enumerate(inner.split(rest, label[rest], group[rest])):
        fold[part] = k
    names = list(_models(seed))
    logits = np.empty((len(rest), len(names)))
    held_logits = np.empty((FOLDS, len(held), len(names)))
    for column, name in enumerate(names):
        began = time.process_time()
        for k in range(FOLDS):
            model = _models(seed)[name]().fit(x[rest][fold != k], label[rest][fold != k])
            logits[fold == k, column] = _logit(model, x[rest][fold == k])
            held_logits[k, :, column] = _logit(model, x[held])
        print(f"  {name}: {time.process_time() - began:.0f} CPU-s", flush=True)
    return {
        "label": label[rest], "group": group[rest], "fold": fold, "logits": logits,
        "held_label": label[held], "held_group": group[held], "held_logits": held_logits,
    }  # fmt: skip


def load_predictions(
    name: str, seed: int, input_root: Path | None, rows: int, tuned: int | None = None
) -> dict:
    """Return the predictions of one data set and seed, made on the first call."""
    path = paths.cache_dir() / "benchmarks" / f"{name}.{rows}.{tuned or 'most'}.{seed}.npz"
    if not path.exists():
        print(f"{name}, seed {seed}", flush=True)
        made = make_predictions(load_features(name, input_root, rows), seed, tuned)
        np.savez_compressed(path, **made)  # type: ignore[arg-type]
    with np.load(path) as stored:
        return {key: stored[key] for key in stored}


def table_of(found: dict[str, np.ndarray], members: Sequence[int]) -> Predictions:
    """Dress the predictions of some models on the tuned rows as the table that tuning looks at."""
    blank = np.full(len(found["label"]), "", dtype=object)
    return Predictions(
        item_id=blank, label=found["label"], group=found["group"], fold=found["fold"],
        domain=blank, kind=blank, logit=found["logits"][:, members],
    )  # fmt: skip


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what says which predictions: data sets, seeds, rows."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--input-root", type=Path)
    parser.add_argument("--data", nargs="+", default=["cifake", "dfdc_faces"])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--tuned", type=int, help="only so many get folds, the rest is held out")
    return parser


def main() -> None:
    """Make and keep all predictions."""
    arguments = make_parser(__doc__).parse_args()
    warnings.filterwarnings("ignore")
    began = time.process_time()
    for name in arguments.data:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            load_predictions(name, seed, arguments.input_root, arguments.rows, arguments.tuned)
    print(f"made in {(time.process_time() - began) / 60:.1f} CPU-minutes")


if __name__ == "__main__":
    main()
