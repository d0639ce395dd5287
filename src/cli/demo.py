"""`python -m src demo`: the whole job on the embedded data set, through the three commands."""

import shlex
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial

import pandas as pd

from src import paths
from src.artifacts.recipes import read_recipe
from src.cli import parsers
from src.cli.predict import Predicting, predict
from src.cli.train import train
from src.cli.tune import Tuning, make_recipe
from src.compute.request import Compute
from src.data.demo.make import make_demo
from src.ensemble.align import align
from src.metrics import macro_f1
from src.training.job import Options

SCHEME = "sgkf3_s42"
MODELS = ("effnet_lite0_probe", "compact64_highpass")


def run_demo(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    began = time.monotonic()
    print(f"data: {make_demo()}\n", flush=True)
    again, where = arguments.overwrite, ["--data", paths.DEMO, "--scheme", SCHEME]
    for model in MODELS:
        words = ["train_folds.py", "--model", model, *where, *["--overwrite"] * again]
        options = Options(overwrite=again, report=False)
        _step(words, lambda m=model, o=options: train(m, paths.DEMO, o, changes={}, scheme=SCHEME))
    words = ["tune.py", *where, "--models", *MODELS]
    _step(words, lambda: make_recipe(paths.DEMO, SCHEME, Tuning(MODELS)))
    words = ["predict_ensemble.py", "--data", paths.DEMO]
    _step(words, lambda: predict(paths.DEMO, Predicting(), Compute()))
    _print_table(time.monotonic() - began)


def _step(words: list[str], work: Callable[[], None]) -> None:
    print(f"$ python {shlex.join(words)}", flush=True)
    work()
    print(flush=True)


def _print_table(seconds: float) -> None:
    recipe = read_recipe(paths.recipe_json(paths.DEMO, "tuned"))
    aligned = align(paths.DEMO, SCHEME, MODELS)
    print("| what | macro-F1 | on which rows |")
    print("|---|---|---|")
    for column, model in enumerate(aligned.models):
        score = macro_f1(aligned.label, aligned.logit[:, column] >= 0)
        print(f"| {model} at 0.5 | {score:.4f} | {len(aligned.label)} out-of-fold |")
    scores = recipe.scores
    for key, text in (("incumbent", "mean at 0.5"), ("cross_fitted", "tuned, cross-fitted")):
        if scores.get(key) is not None:
            print(f"| {text} | {scores[key]:.4f} | {len(aligned.label)} out-of-fold |")
    answers = pd.read_csv(paths.submission_csv(paths.DEMO, "tuned"), dtype=str)
    answers.columns = ["item_id", "pred"]
    truth = pd.read_csv(paths.demo_truth_csv(), dtype=str)
    joined = answers.merge(truth, on="item_id", validate="one_to_one")
    held = macro_f1(joined["label"].astype(int), joined["pred"].astype(int))
    print(f"| the submission | {held:.4f} | {len(joined)} test items, truth kept aside |")
    print(f"\n{seconds:.0f} s. Everything lies in:")
    for path in (
        paths.folds_csv(paths.DEMO, SCHEME),
        paths.run_dir(paths.DEMO, SCHEME, MODELS[0]).parent,
        paths.oof_scheme_dir(paths.DEMO, SCHEME),
        paths.recipe_json(paths.DEMO, "tuned"),
        paths.submission_csv(paths.DEMO, "tuned"),
    ):
        print(f"  {path}")


main = partial(parsers.main, "demo")
