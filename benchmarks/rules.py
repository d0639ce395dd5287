"""What predicts where a competition allows one model: every kind on rows that nothing ever saw.

    RVF_ROOT=/scratch python benchmarks/rules.py --weights mobilenetv2_100.imagenet1001.pth

RVF_ROOT/input holds dfdc_faces. A quarter of its groups becomes the test split of a data set of its
own; four variants of one net, soups of them and a refit see the rest. Everything goes through the
commands, which skip what is done already. About 20 CPU-minutes from nothing.
"""

import argparse
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.merging import run, target, write_merges
from benchmarks.oof_models import HELD, _logit, _models, load_features, load_predictions
from src import paths
from src.artifacts.competition import FREE, read_rules
from src.artifacts.folds import existing_scheme, read_folds
from src.artifacts.recipes import Recipe
from src.bootstrap import bootstrap_scores
from src.compute.request import Compute
from src.data.layouts.load import load_dataset
from src.ensemble.align import align
from src.ensemble.search import Search
from src.ensemble.tune import tune
from src.ensemble.under_rules import under_rules
from src.ensemble.vote import apply_recipe
from src.inference import passes, stored
from src.inference.member_logits import member_logits
from src.metrics import MACRO_F1, macro_f1, sigmoid
from src.stratify import stratified_group_folds
from src.thresholds import best_threshold

FACES, DATA = "dfdc_faces", "dfdc_rules"
STEM, N = "v", 4
SETTINGS = ["--set", "input.image_size=96", "--set", "optim.epochs=3", "--track", "none"]
RULES = {"single_model": True, "tta": False, "max_files": 1, "max_params": 2e9}
KEPT = "kept.csv"  # labels and groups of the test items, beside the data set


def prepare() -> Path:
    """Make the data set, once; returns the file of what its test items are."""
    home, truth = paths.dataset_dir(DATA), paths.input_dir() / f"{DATA}.{KEPT}"
    if truth.exists():
        return truth
    run("-m", "src", "folds", "--data", FACES)
    table = read_folds(paths.folds_csv(FACES, str(existing_scheme(FACES, None))))
    own = np.where(table["group"] == "", "i " + table["item_id"], "g " + table["group"])
    labels, groups = table["label"].to_numpy(np.int64), pd.factorize(own)[0]
    kept = stratified_group_folds(labels, groups, 4, seed=7) == 0
    names = table["item_id"].str.rsplit("/", n=1).str[-1]
    for split in ("train", "test"):
        (home / split).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(paths.dataset_dir(FACES) / "train.zip") as archive:
        for name, is_kept in zip(names, kept, strict=True):
            place = home / ("test" if is_kept else "train") / name
            place.write_bytes(archive.read(f"train/{name}"))
    answers = pd.read_csv(paths.dataset_dir(FACES) / "train.csv").set_index("filename")
    answers.loc[names[~kept]].reset_index().to_csv(home / "train.csv", index=False)
    sample = pd.DataFrame({"filename": names[kept], "label": "REAL"})
    sample.to_csv(home / "sample_submission.csv", index=False)
    (home / "dataset.yaml").write_text("submission: {label_names: [REAL, FAKE]}\n")
    seen = pd.DataFrame({"item_id": names, "label": labels, "group": groups})[kept]
    seen.to_csv(truth, index=False)
    return truth


def train(weights: Path) -> None:
    """Train variants, merge them, and train the best one on every row."""
    place = ["--data", DATA, "--device", "cpu", "--weights", weights]
    run("-m", "src", "variants", "mobilenetv2_100", "--n", str(N), "--as", STEM, "--fold", "0",
        *place, *SETTINGS)  # fmt: skip
    names = [f"{STEM}_v{number}" for number in range(N)]
    scheme = str(existing_scheme(DATA, None))
    best = tune(align(DATA, scheme, names), names=["best-member"]).recipe
    best = next(member.model for member in best.members if member.weight)
    models = f"models: [{', '.join(names)}]\n"
    three = f"models: [{', '.join(names[:2] + names[3:])}]\n"  # without the largest learning rate
    merges = write_merges({
        "soup_uniform": "merge_method: uniform\n" + models,
        "soup_three": "merge_method: uniform\n" + three,
        "soup_greedy": "merge_method: uniform\n" + models + "select: greedy\n",
        "soup_wise": f"merge_method: wise_ft\nbase_model: start\nmodels: [{best}]\n"
        "search: {alpha: [0.6, 0.7, 0.8, 0.9]}\n",
    })  # fmt: skip
    run("-m", "src", "merge", *merges, "--fold", "0", *place, "--no-check")
    run("train_folds.py", "--model", best, "--fold", "all", *place, "--track", "none")


def answers_of(recipe: Recipe, items: stored.ItemsToPredict) -> pd.Series:
    """Return what a recipe says of the kept items: 0 or 1 by item_id."""
    parts = stored.needed_parts(recipe)
    missing = [part for part in parts if stored.stored_predictions(part, items) is None]
    if missing:
        passes.predict_parts(missing, items, Compute("cpu", "fp32", 0))
    logits = member_logits(recipe, parts, items)
    return apply_recipe(recipe, logits, 0.5).set_index("item_id")["pred"]


def judge(truth: Path) -> None:
    """Score every kind on the kept rows, beside what tuning said of it."""
    aligned = align(DATA, str(existing_scheme(DATA, None)))
    search, items = Search(), stored.items_to_predict(load_dataset(DATA))
    free = tune(aligned, search=search)
    rules = read_rules(RULES, "rules")
    assert rules != FREE
    ruled = under_rules(aligned, free, rules, lambda rows: tune(rows, search=search), search)
    offers = [one for one in ruled.offers if one.tuned is not None and not one.lacking]
    recipes = {one.kind: one.tuned.recipe for one in offers} | {"no rules": free.recipe}
    kept = pd.read_csv(truth).set_index("item_id")
    says = pd.DataFrame({kind: answers_of(recipe, items) for kind, recipe in recipes.items()})
    kept = kept.loc[says.index.str.rsplit("/", n=1).str[-1]]
    label, group = kept["label"].to_numpy(), kept["group"].to_numpy()
    answers = [(said.to_numpy(float), said.to_numpy()) for _, said in says.items()]
    draws = bootstrap_scores(MACRO_F1, label, answers, group, seed=1)
    held = {kind: macro_f1(label, says[kind].to_numpy()) for kind in says}
    places = {kind: place for place, kind in enumerate(says)}
    for one in offers:
        place = places[one.kind]
        verdict = "chosen" if one is ruled.chosen else ", ".join(one.broken) or "obeys"
        error = draws[:, place].std(ddof=1)
        print(f"{one.kind:<18} {one.who():<24} cross-fitted {one.score.cross_fitted:.4f}  "
              f"kept rows {held[one.kind]:.4f} ± {error:.4f}  {verdict}")  # fmt: skip
    print(f"{'no rules':<43} cross-fitted {free.recipe.scores['cross_fitted']:.4f}  kept rows "
          f"{held['no rules']:.4f}")  # fmt: skip
    obey = [one.kind for one in offers if one.fits]
    best, chosen = max(obey, key=held.__getitem__), ruled.chosen.kind
    error = float((draws[:, places[best]] - draws[:, places[chosen]]).std(ddof=1))
    behind = held[best] - held[chosen]
    target("the chosen kind on the kept rows", f"{chosen} {held[chosen]:.4f}, best {best} "
           f"{held[best]:.4f}, behind by {behind:.4f}, one s.e. of the difference {error:.4f}",
           "behind by at most one s.e.", behind <= error)  # fmt: skip
    price = held["no rules"] - held[chosen]
    print(f"price of the rules: {ruled.price.cost:+.4f} ± {ruled.price.error:.4f} cross-fitted, "
          f"{price:+.4f} on the kept rows")  # fmt: skip


def refits(input_root: Path | None, rows: int = 12_000, seeds: int = 3) -> None:
    """Hold a refit at its folds' threshold against one fold's model, on held-out rows of others."""
    found = []
    for name in ("cifake", FACES):
        table = load_features(name, input_root, rows)
        label, group = table["label"].to_numpy(), pd.factorize(table["group"])[0]
        x = table.filter(regex="^f").to_numpy()
        for seed in range(seeds):
            seen = load_predictions(name, seed, input_root, rows)
            splitter = StratifiedGroupKFold(HELD, shuffle=True, random_state=seed)
            rest, held = next(splitter.split(x, label, group))
            for column, make in enumerate(_models(seed).values()):
                cut, _ = best_threshold(seen["label"], sigmoid(seen["logits"][:, column]))
                single = [
                    macro_f1(label[held], sigmoid(logit[:, column]) >= cut)
                    for logit in seen["held_logits"]
                ]
                refit = _logit(make().fit(x[rest], label[rest]), x[held])
                found.append((name, np.mean(single), macro_f1(label[held], sigmoid(refit) >= cut)))
    cells = pd.DataFrame(found, columns=["data", "one fold", "refit"])
    gain = cells["refit"] - cells["one fold"]
    print(cells.groupby("data").mean().to_string(float_format=lambda value: f"{value:.4f}"))
    target("a refit against one fold's model", f"{gain.mean():+.4f} in the mean of {len(cells)} "
           f"cells, ahead in {(gain > 0).mean():.0%}, the worst {gain.min():+.4f}", "ahead in the "
           "mean", gain.mean() > 0)  # fmt: skip


def main() -> None:
    """Prepare, train, judge."""
    parser = argparse.ArgumentParser(description="One model alone: every kind on kept rows.")
    parser.add_argument("--weights", type=Path, help="what the net starts from")
    parser.add_argument("--refits", action="store_true", help="refits of cheap classifiers alone")
    arguments = parser.parse_args()
    if arguments.refits:
        refits(None)
        return
    truth = prepare()
    train(arguments.weights)
    judge(truth)


if __name__ == "__main__":
    main()
