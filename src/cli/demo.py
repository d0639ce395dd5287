"""`python -m src demo`: the whole job on the embedded data set, through the three commands."""

import time
from collections.abc import Callable, Sequence

from src import paths
from src.cli.common import DONE, INTERRUPTED, Parser, run_command
from src.errors import UserError

SCHEME = "sgkf3_s42"
MODELS = ("compact64", "compact64_highpass")


def _run(argv: Sequence[str] | None) -> None:
    parser = Parser(__doc__ or "", prog="python -m src demo")
    parser.add_argument("--overwrite", action="store_true", help="train again what is finished")
    arguments = parser.parse_args(argv)
    from src.data.demo.make import make_demo

    began = time.monotonic()
    print(f"data: {make_demo()}\n", flush=True)
    again = ["--overwrite"] if arguments.overwrite else []
    from src.cli import predict, train, tune

    for model in MODELS:
        _step(train.main, "train_folds.py", "--model", model, *_where(), *again)
    _step(tune.main, "tune.py", *_where(), "--models", *MODELS)
    _step(predict.main, "predict_ensemble.py", "--data", paths.DEMO)
    _print_table(time.monotonic() - began)


def _where() -> list[str]:
    return ["--data", paths.DEMO, "--scheme", SCHEME]


def _step(main: Callable[[Sequence[str] | None], int], script: str, *arguments: str) -> None:
    print(f"$ python {script} {' '.join(arguments)}", flush=True)
    code = main(arguments)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code != DONE:
        raise UserError(f"the demo stopped: {script} ended with exit code {code}")
    print(flush=True)


def _print_table(seconds: float) -> None:
    import pandas as pd

    from src.artifacts.recipes import read_recipe
    from src.ensemble.align import align
    from src.metrics import macro_f1

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src demo`; returns the exit code."""
    return run_command(_run, argv)
