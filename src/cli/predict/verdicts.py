"""A recipe's answers to files of any folder: real, fake, or unsure with the reasons."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.files import sha256_file
from src.artifacts.recipes import Recipe, read_recipe
from src.cli.common import choose_recipe, choose_tunable, recipe_names, recipe_path, taken
from src.cli.predict.far import far_files
from src.compute.request import Compute
from src.ensemble.rule import rule_of
from src.ensemble.shift.risk import ASSUMES, NEVER, RISK, Band, check_halves, find_band
from src.inference.folder import vote_on_items
from src.inference.member_logits import levels_of
from src.inference.stored import ItemsToPredict
from src.reporting.evaluated import IN_SAMPLE, honest_rows, how_decided, subject_of_recipe

UNSURE, WORDS = "unsure", np.array(["real", "fake"], dtype=object)
UNREADABLE = "unreadable"  # the reason of a file that has no answer
# Why a verdict is unsure.
BAND, FLIPS, NO_FACE, PARTIAL, FAR = "band", "flips", "no face", "partial file", "far"
IN_SAMPLE_DOUBT = (
    "too few groups to cross-fit: the band rests on rows that the rule itself was fitted on, and "
    "more of what is sure may be wrong; train more folds"
)


class Judged(NamedTuple):
    """What is said of n files, by name."""

    prob: NDArray[np.float64]  # (n,) P(fake); of no account where not `readable`
    pred: NDArray[np.int64]  # (n,) 0/1, likewise
    readable: NDArray[np.bool_]  # (n,)
    partial: dict[str, str]  # file -> what is wrong with one read only in part, or named otherwise
    no_face: list[str]  # the files that show no face to a model that crops them
    made_from: dict[str, Any]  # who judged, by which threshold: for the JSON
    verdicts: pd.DataFrame | None = None  # `verdicts_of`, where a recipe judged


def judge(arguments: Namespace, items: ItemsToPredict) -> Judged:
    """Predict files with a recipe, and say which verdicts are sure.

    Raises:
        UserError: `--risk` cannot be met; before anything is predicted.
    """
    dataset = arguments.data
    if dataset is None or not recipe_names(dataset):  # a bundle has recipes and no data
        dataset = choose_tunable(dataset, arguments.input_root)
    name = choose_recipe(dataset, arguments.recipe)
    recipe = read_recipe(recipe_path(dataset, name))
    rule, levels = rule_of(recipe), levels_of(recipe, arguments.deliveries)
    risk = RISK if arguments.risk is None else arguments.risk
    band, risk_record = (None, None) if risk == 0 else _band(name, recipe, risk)
    found = vote_on_items(recipe, items, taken(Compute, arguments), levels)
    votes = found.votes.loc[items.item_ids]
    readable = ~votes["fallback"].to_numpy(bool)
    prob, pred = votes["prob"].to_numpy(np.float64), votes["pred"].to_numpy(np.int64)
    reasons: dict[str, set[str]] = {}
    if band is not None:
        within = ~band.is_sure(prob, votes["threshold"].to_numpy(np.float64), pred)
        reasons[BAND] = set(votes.index[within])
    made_from: dict[str, Any] = {
        "recipe": name,
        "recipe_sha256": sha256_file(recipe_path(dataset, name)),
        "dataset": dataset,
        "checkpoints": found.checkpoints,
        "threshold": rule.threshold,
        "risk": risk_record,
    }
    if found.stability is not None:
        print(found.stability.words())
        made_from["deliveries"] = found.stability.record()
        reasons[FLIPS] = set(found.stability.flipped())
    far = far_files(recipe, items, readable, arguments)
    print(far.words)
    reasons |= {NO_FACE: set(found.no_face), PARTIAL: set(found.partial), FAR: far.names}
    made_from["far"] = {"files": sorted(far.names), "how": far.words}
    verdicts = verdicts_of(items.item_ids, pred, readable, reasons)
    made_from["verdicts"] = verdicts["verdict"].value_counts().drop("", errors="ignore").to_dict()
    return Judged(prob, pred, readable, found.partial, found.no_face, made_from, verdicts)


def verdicts_of(
    names: Sequence[str],
    pred: NDArray[np.int64],
    readable: NDArray[np.bool_],
    reasons: Mapping[str, set[str]],
) -> pd.DataFrame:
    """Return `verdict` (real, fake or unsure) and `reason` of files, by name.

    Args:
        names: n files.
        pred, readable: (n,) 0/1, and whether there is an answer at all; without one there is no
            verdict either.
        reasons: why verdicts are unsure -> the files; several are joined by `; `.
    """
    why = ["; ".join(one for one, some in reasons.items() if name in some) for name in names]
    reason = np.where(readable, np.array(why, dtype=object), UNREADABLE)
    said = np.where(reason == "", WORDS[pred], UNSURE)
    verdict = np.where(readable, said, "")
    return pd.DataFrame({"verdict": verdict, "reason": reason}, index=pd.Index(names))


def count_verdicts(verdicts: pd.DataFrame) -> str:
    """Say how many files are sure, and why the others are not."""
    given = verdicts[verdicts["verdict"] != ""]
    counts = given["verdict"].value_counts()
    sure = int(counts.drop(UNSURE, errors="ignore").sum())
    said = f"{sure} of {len(given)} verdicts are sure"
    said += f" ({counts.get('real', 0)} real, {counts.get('fake', 0)} fake)"
    unsure = given.loc[given["verdict"] == UNSURE, "reason"].str.split("; ").explode()
    if len(unsure):
        whys = (f"{count} {why}" for why, count in unsure.value_counts().items())
        said += f"; unsure: {', '.join(whys)}"
    return said


def _band(name: str, recipe: Recipe, risk: float) -> tuple[Band, dict[str, Any]]:
    """Find the band of a recipe, say so, and return it with what the JSON says of it."""
    subject = subject_of_recipe(name, recipe)
    rows = honest_rows(subject)
    band, check = find_band(rows, risk), check_halves(rows, risk)
    threshold = rule_of(recipe).threshold
    share = float(rows.label.mean())
    print(f"risk {risk:g} with {band.confidence:.0%} confidence; {band.words(threshold)}")
    print(check.words())
    print(f"{ASSUMES} (here {share:.1%})")
    doubts = list(subject.notes)
    if how_decided(subject) == IN_SAMPLE:
        doubts.append(IN_SAMPLE_DOUBT)
    for doubt in doubts:
        print(f"WARNING {doubt}")
    low, high = band.ends(threshold)
    return band, {
        "risk": risk,
        "confidence": band.confidence,
        "real_up_to": low if band.real < NEVER else None,
        "fake_from": high if band.fake < NEVER else None,
        "check": check.record(),
        "share_fake": share,
        "assumes": ASSUMES,
        "doubts": doubts,
    }
