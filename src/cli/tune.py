"""`python tune.py`: turn out-of-fold predictions into a recipe, and say what it is worth."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from src import paths
from src.cli.common import (
    Parser,
    add_data_arguments,
    choose_dataset,
    existing_scheme,
    run_command,
)
from src.errors import UserError, unknown_name

if TYPE_CHECKING:
    from src.ensemble.align import Aligned
    from src.ensemble.tune import Candidate, Tuned

DEFAULT_RECIPE = "tuned"
DESCRIPTION = """\
Find the weights and the threshold of an ensemble on out-of-fold predictions.

needs:   oof/<data>/<scheme>/<model>/fold_<k>.csv, written by train_folds.py
writes:  recipes/<data>/<recipe>.json, read by predict_ensemble.py

Every candidate, from the plain mean at 0.5 upwards, is scored on items it was not tuned on; one
replaces the simpler one only if it gains more than one standard error there.
"""


def make_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(DESCRIPTION, prog="tune.py")
    add_data_arguments(parser)
    parser.add_argument(
        "--models", nargs="+", metavar="NAME", help="members (default: all that have predictions)"
    )
    parser.add_argument(
        "--voting", default="soft", metavar="NAME", help="soft (mean of probs, default) or hard"
    )
    parser.add_argument(
        "--trials", type=int, default=200, metavar="N", help="trials of one search (default: 200)"
    )
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="default: 42")
    parser.add_argument(
        "--recipe", default=DEFAULT_RECIPE, metavar="NAME", help="name to write it under: tuned"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> None:
    args = make_parser().parse_args(argv)
    _check_arguments(args)
    dataset = choose_tunable(args.data, args.input_root)
    scheme = _scheme(dataset, args.scheme)

    from src.artifacts.recipes import write_recipe
    from src.ensemble.align import align
    from src.ensemble.search import Search
    from src.ensemble.tune import n_trials, tune
    from src.ensemble.vote import VOTING

    VOTING.get(args.voting)
    aligned = align(dataset, scheme, args.models)
    _print_aligned(aligned)
    total = n_trials(aligned, args.voting, args.trials, args.seed)
    with _progress(total) as on_trial:
        search = Search(args.trials, args.seed, on_trial)
        tuned = tune(aligned, voting=args.voting, search=search)
    path = paths.recipe_json(dataset, args.recipe)
    replaced = path.exists()
    write_recipe(path, tuned.recipe)
    _print_candidates(tuned)
    print(f"\n{verdict(tuned)}")
    print(f"{'replaced' if replaced else 'wrote'} {path}")
    print(f"next: {_next_command(args, dataset)}")


def _check_arguments(args: argparse.Namespace) -> None:
    if args.trials < 1:
        raise UserError(f"--trials {args.trials}: want 1 or more")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed {args.seed}: want 0 to {2**32 - 1}")
    name = args.recipe
    if not name or name.startswith(".") or Path(name).name != name or "\\" in name:
        raise UserError(f"--recipe {name!r}: want a plain name, such as {DEFAULT_RECIPE}")


def choose_tunable(wanted: str | None, input_root: Path | None) -> str:
    """Return the data set to tune on: as other commands do, or the one that has predictions.

    Tuning reads no images, so a machine without `input/` can tune.
    """
    home = paths.oof_home()
    names = sorted(p.name for p in home.iterdir() if p.is_dir()) if home.is_dir() else []
    if wanted in names:
        return str(wanted)
    try:
        return choose_dataset(wanted, input_root)
    except UserError:
        if wanted is None and len(names) == 1:
            return names[0]
        raise


def _scheme(dataset: str, wanted: str | None) -> str:
    scheme = existing_scheme(dataset, wanted)
    if scheme is not None:
        return scheme
    home = paths.folds_dir(dataset)
    train = f"python train_folds.py --data {shlex.quote(dataset)} --model effnet_b0 --fold 0"
    if wanted is None:
        raise UserError(
            f"{home} holds no fold file and nothing is trained on it yet; run {train} first"
        )
    names = [p.stem for p in home.glob("*.csv") if not p.name.endswith(".excluded.csv")]
    raise unknown_name("fold scheme", wanted, names, f"looked in {home}; {train} makes one")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Yield a callback for one trial; a bar where somebody watches, else one plain line."""
    if not total:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        print(f"searching: {total} trials in all", file=sys.stderr)
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc="searching", unit="trial", leave=False) as bar:

        def on_trial() -> None:
            bar.update()

        yield on_trial


def _folds(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {' '.join(map(str, folds))}"


def _print_aligned(aligned: "Aligned") -> None:
    from src.metrics import auc, best_threshold, macro_f1, sigmoid

    used = f"{_folds(aligned.folds)} of {len(aligned.all_folds)}"
    print(
        f"{aligned.dataset}/{aligned.scheme}: {used}, {len(aligned.models)} member(s), "
        f"{aligned.label.size} items in {aligned.n_groups} groups, "
        f"{aligned.label.mean():.1%} fake\n"
    )
    rows = [["member", "macro-F1 @0.5", "best in-sample", "at", "AUC", ""]]
    for model, logit in zip(aligned.models, aligned.logits.T, strict=True):
        prob = sigmoid(logit)
        threshold, best = best_threshold(aligned.label, prob)
        plain = macro_f1(aligned.label, prob >= 0.5)
        mark = "selected-on" if model in aligned.selected_on else ""
        area = auc(aligned.label, logit)
        rows.append([model, f"{plain:.4f}", f"{best:.4f}", f"{threshold:.4f}", f"{area:.4f}", mark])
    _print_table(rows)
    if aligned.selected_on:
        print("selected-on: the epoch was chosen by its score on these items, which flatters it")
    for model in aligned.models:
        left = [out for out in aligned.left_out if out.model == model]
        if left:
            why = "; ".join(dict.fromkeys(out.reason for out in left))
            print(f"left out: {_folds([out.fold for out in left])} of {model} ({why})")


def _print_candidates(tuned: "Tuned") -> None:
    rows = [["candidate", "in-sample", "cross-fitted", "95 % interval", "gain ± s.e.", "over", ""]]
    rows += [_candidate_row(candidate, tuned.chosen) for candidate in tuned.candidates]
    print()
    _print_table(rows)
    for note in tuned.notes:
        print(note)
    scores = tuned.recipe.scores
    print(f"macro-F1 on {scores['rows']} items in {scores['groups']} groups")
    weights = ", ".join(f"{m.model} {m.weight:.3f}" for m in tuned.recipe.members)
    print(f"weights of {tuned.chosen}: {weights}; {_thresholds(tuned)}")


def _thresholds(tuned: "Tuned") -> str:
    if tuned.recipe.stage("voting")["rule"] == "hard":
        return "members' thresholds " + ", ".join(
            f"{member.threshold:.4f}" for member in tuned.recipe.members
        )
    return f"threshold {tuned.recipe.stage('threshold')['value']:.4f}"


def _candidate_row(candidate: "Candidate", chosen: str) -> list[str]:
    c = candidate
    gain = "" if c.gain is None else f"{c.gain:+.4f}"
    return [
        c.name,
        f"{c.in_sample:.4f}",
        "-" if c.cross_fitted is None else f"{c.cross_fitted:.4f}",
        "-" if c.interval is None else f"{c.interval[0]:.4f} .. {c.interval[1]:.4f}",
        gain if c.gain_se is None else f"{gain} ± {c.gain_se:.4f}",
        c.over or "",
        "chosen" if c.name == chosen else "",
    ]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def verdict(tuned: "Tuned") -> str:
    """Say in one sentence which candidate the recipe holds, and why."""
    chosen = next(c for c in tuned.candidates if c.name == tuned.chosen)
    if chosen.gain is not None:
        return (
            f"{chosen.name} is taken: on items it was not tuned on it scores "
            f"{chosen.cross_fitted:.4f}, {chosen.gain:+.4f} over {chosen.over}, more than one "
            f"standard error ({chosen.gain_se:.4f})."
        )
    if chosen.cross_fitted is None:
        return f"{chosen.name} stays: nothing could be scored on items it was not tuned on."
    if len(tuned.candidates) > 1 and all(c.gain_se is None for c in tuned.candidates):
        return f"{chosen.name} stays: with so few groups no gain can be told from luck."
    return f"{chosen.name} stays: no candidate gains more than one standard error over it."


def _next_command(args: argparse.Namespace, dataset: str) -> str:
    words = ["python", "predict_ensemble.py", "--data", dataset]
    if args.input_root is not None:
        words += ["--input-root", str(args.input_root)]
    if args.recipe != DEFAULT_RECIPE:
        words += ["--recipe", args.recipe]
    return shlex.join(words)
