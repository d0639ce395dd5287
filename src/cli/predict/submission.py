"""A recipe on a data set's test items: fill in what is missing, vote, write the submission."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from src import paths
from src.artifacts.answers import Answer, Output, cut_elsewhere, describe, settle_answer
from src.artifacts.competition import FREE, check_obeyed, hours_of
from src.artifacts.files import sha256_file
from src.artifacts.folds import read_folds
from src.artifacts.oof import Levels
from src.artifacts.outputs import check_submission
from src.artifacts.recipes import Recipe, read_recipe
from src.artifacts.submissions import add_to_sidecar, write_submission
from src.cli.common import (
    choose_dataset,
    choose_recipe,
    listed,
    print_not_whole,
    recipe_path,
)  # fmt: skip
from src.compute.clock import Clock, TimeUpError
from src.compute.request import Compute
from src.data.items.manifest import Dataset, check_direction
from src.data.layouts.load import load_dataset
from src.ensemble.extra import is_extra, read_extra_record
from src.ensemble.prior import at_share, parse_prior, shift_recipe
from src.ensemble.rule import rule_of
from src.ensemble.shift.delivered import check_ours
from src.ensemble.shift.stability import Stability, stability_of
from src.ensemble.vote import apply_recipe
from src.errors import UserError
from src.inference import stored
from src.inference.in_time import fill_in_time, missing_parts, names_of
from src.inference.lineage import dataset_config
from src.inference.member_logits import levels_of, logits_at, member_logits
from src.inference.stored import ItemsToPredict, Part
from src.inference.unfinished import without

REFIT = (
    "weights and thresholds are the recipe's, tuned on the members' folds; models trained on "
    "every row have no out-of-fold predictions, so the recipe's scores are of the folds' models"
)
LEFT_OUT = (
    "they did not fit into --max-hours; the others' weights were scaled up, the threshold is the "
    "one tuned for all"
)
PRIOR = (
    "it assumes that real and fake pictures look like the training ones and only their shares "
    "differ; new kinds of fakes break that"
)


@dataclass(frozen=True)
class Predicting:
    """How a recipe is voted with."""

    recipe: str | None = None  # its name; None takes `tuned`, or the only one
    refit: bool = False  # each member by its model that was trained on every row
    overwrite: bool = False  # predict again what is there
    fit_in_time: bool = False  # rather without members of low weight than not at all
    deliveries: int | None = None  # at how many levels each item is seen too (`few.first`)
    prior: str | None = None  # `em`, `bbse` or the share of fakes among the test items
    output_kind: Output | None = None  # what the answers are, instead of what dataset.yaml says
    input_root: Path | None = None  # folder of data sets, instead of `input/`


def predict(name: str | None, how: Predicting, compute: Compute) -> None:
    """Predict a data set's test items, vote with a recipe and write the submission."""
    compute = _in_time_of_rules(name, how, compute)
    try:
        with compute.clock.running():
            _predict(name, how, compute)
    except TimeUpError as end:
        raise UserError(
            f"{end}, and no submission was written; what is predicted by now is kept, and the same "
            "command (without --overwrite) goes on from here"
        ) from None


def _in_time_of_rules(name: str | None, how: Predicting, compute: Compute) -> Compute:
    """Return what to compute with, until the rules' time is over where no other limit was given."""
    if compute.clock.max_hours is not None:
        return compute
    name = choose_dataset(name, how.input_root)
    recipe = read_recipe(recipe_path(name, choose_recipe(name, how.recipe)))
    hours = hours_of(recipe, dataset_config(name, how.input_root).rules)
    if hours is not None:
        print(f"--max-hours {hours:g}, which the rules of the competition give")
        return replace(compute, clock=Clock(hours))
    if how.fit_in_time:
        raise UserError("--fit-in-time wants --max-hours H too (or max_hours among the rules)")
    return compute


def _predict(name: str | None, how: Predicting, compute: Compute) -> None:
    prior = None if how.prior is None else parse_prior(how.prior)
    name = choose_dataset(name, how.input_root)
    recipe_name = choose_recipe(name, how.recipe)
    recipe = read_recipe(recipe_path(name, recipe_name))
    parts = _parts(name, recipe_name, recipe, how, compute.clock.max_hours)
    levels = levels_of(recipe, how.deliveries)
    if levels is not None:
        check_ours(name, recipe.scheme, [m.model for m in recipe.members if m.weight])
    path = paths.submission_csv(name, _submission_name(name, recipe_name, refit=how.refit))
    check_submission(path, "recipe")
    dataset = load_dataset(name, how.input_root)
    answer = _settle(recipe, dataset, how)
    items = stored.items_to_predict(dataset)
    if not how.fit_in_time:  # which leaves out what the time does not suffice for
        folds = [paths.ALL] if how.refit else None
        check_obeyed(recipe_name, recipe, dataset.config.rules, folds, len(items.item_ids))
    print(f"labels: {dataset.labels.polarity}")
    parts, extras = _fill_in(recipe_name, recipe, parts, items, how, compute)
    recipe = without(recipe, parts)
    if not any(member.weight for member in recipe.members):
        raise UserError("no checkpoint's predictions fit into the time that is left")
    logits = member_logits(recipe, parts, items)
    if prior is not None:
        recipe, extras["prior"] = _shift(recipe, logits, prior, answer.output)
    decide, prevalence = _decider(recipe, dataset)
    votes = decide(logits)
    written = votes
    if prior is not None:
        shares = extras["prior"]["train_share"], extras["prior"]["test_share"]
        written = votes.assign(prob=at_share(votes["prob"].to_numpy(), *shares))
    made_from = _sidecar(recipe_name, recipe, parts, dataset.sha256) | extras
    _write(path, dataset, written, prevalence, answer, made_from)
    if levels is None:
        return

    def stability() -> Stability:
        _see_more(recipe, parts, levels, items, compute, overwrite=how.overwrite)
        at = logits_at(recipe, parts, items, levels)
        return stability_of(votes, {one: decide(some) for one, some in at.items()}, levels)

    _add_stability(path, stability)


def _fill_in(
    name: str,
    recipe: Recipe,
    parts: Sequence[Part],
    items: ItemsToPredict,
    how: Predicting,
    compute: Compute,
) -> tuple[list[Part], dict[str, Any]]:
    """Predict what is missing; returns the checkpoints that vote, and what the sidecar says."""
    looked, wanted = levels_of(recipe), list(parts)
    if looked is not None:
        wanted += [stored.as_delivered(part, looked) for part in parts]
    missing = missing_parts(wanted, items, compute, overwrite=how.overwrite)
    count = len({part.checkpoint for part in missing})
    print(f"{name}: {len(parts)} checkpoints, {count} of them to predict with")
    left_out = fill_in_time(missing, items, recipe, compute, fit_in_time=how.fit_in_time)
    extras: dict[str, Any] = {}
    if how.refit:
        extras["refit"] = REFIT
        print(f"refit: {REFIT}")
    if left_out:
        print(f"left out: {', '.join(names_of(left_out))}; {LEFT_OUT}")
        extras["left_out"] = {"checkpoints": names_of(left_out), "why": LEFT_OUT}
    gone = {part.checkpoint for part in left_out}
    return [part for part in parts if part.checkpoint not in gone], extras


def _parts(
    dataset: str, name: str, recipe: Recipe, how: Predicting, hours: float | None
) -> list[Part]:
    """Return the checkpoints that predict; raises where they break a rule, or are not there."""
    folds = [paths.ALL] if how.refit else None
    rules = check_obeyed(name, recipe, dataset_config(dataset, how.input_root).rules, folds)
    rules.check_hours(hours)
    if rules != FREE:
        print(f"rules, which {name} obeys: {rules}")
    if how.refit:
        from src.training.plan import check_refits  # a video decoder, which a vote does not need

        check_refits(recipe)
    return stored.check_recipe(recipe, folds)


def _settle(recipe: Recipe, dataset: Dataset, how: Predicting) -> Answer:
    """Settle what is handed in, before anything is predicted, and say so."""
    layout, config = dataset.require_test(), dataset.config
    given = how.output_kind or config.output
    answer = settle_answer(recipe.metric, config.metric, layout.asked, given)
    # Words of a sample settle labels alone, and a flag may ask for probs.
    written = replace(config, output=answer.output)
    check_direction(dataset.name, layout.answer_column, layout.label_names, written)
    if how.prior is not None and answer.output == "rank":
        raise UserError("--prior changes no rank; leave it out, or write probs: --output-kind prob")
    print(f"answers: {answer.output}, {describe(answer.output, layout.label_names)}")
    for doubt in answer.doubts:
        print(f"WARNING {doubt}")
    return answer


def _submission_name(dataset: str, recipe_name: str, *, refit: bool) -> str:
    """Return the submission's name; raises where another recipe's would be written over."""
    if not refit:
        return recipe_name
    name = f"{recipe_name}_refit"
    if paths.recipe_json(dataset, name).exists():
        raise UserError(
            f"--refit writes {paths.submission_csv(dataset, name)}, and so does the recipe "
            f"{name!r}: make that one under another name (tune.py --recipe NAME) and remove "
            f"{paths.recipe_json(dataset, name)}"
        )
    return name


def _shift(
    recipe: Recipe, logits: Mapping[str, pd.Series], prior: str | float, output: Output
) -> tuple[Recipe, dict[str, Any]]:
    """Move a recipe to the test items' share of fakes; returns it, and what the sidecar says."""
    before = rule_of(recipe).threshold
    moved, shift = shift_recipe(recipe, logits, prior)
    done = f"threshold {before:.4f} -> {shift.rule.threshold:.4f}"
    done = done if output == "label" else "the odds of P(fake) are scaled to that"
    print(
        f"prior ({shift.method}): {shift.test:.1%} fake among the test items, {shift.train:.1%} "
        f"among the out-of-fold rows; {done}"
    )
    print(f"WARNING {PRIOR}")
    return moved, {
        "method": shift.method,
        "train_share": shift.train,
        "test_share": shift.test,
        "threshold": shift.rule.threshold,
        "tuned_threshold": before,
        "assumes": PRIOR,
    }


def _see_more(
    recipe: Recipe,
    parts: Sequence[Part],
    levels: Levels,
    items: ItemsToPredict,
    compute: Compute,
    *,
    overwrite: bool,
) -> None:
    """Predict what is missing of the test items at levels that the recipe's answers do not need."""
    looked = levels_of(recipe)
    names = tuple(name for name in levels.names if looked is None or name not in looked.names)
    delivered = [stored.as_delivered(part, levels._replace(names=names)) for part in parts]
    if names and (missing := missing_parts(delivered, items, compute, overwrite=overwrite)):
        # torch, which stored predictions do not need
        from src.inference.deliveries import predict_levels

        predict_levels(missing, items, compute)


def _add_stability(path: Path, find: Callable[[], Stability]) -> None:
    """Say which verdicts flip, here and beside the submission, which is written by now."""
    try:
        found = find()
    except TimeUpError as end:
        print(
            f"WARNING {end}: which verdicts flip is not known. The submission stands, and the same "
            "command with more time (without --overwrite) goes on from here"
        )
        return
    print(found.words())
    add_to_sidecar(path, {"deliveries": found.record()})


def _decider(
    recipe: Recipe, dataset: Dataset
) -> tuple[Callable[[Mapping[str, pd.Series]], pd.DataFrame], float]:
    """Return what makes votes of members' logits, and the training items' share of fakes."""
    folds = read_folds(paths.readable(paths.folds_csv(recipe.dataset, recipe.scheme)))
    prevalence = float(folds.loc[folds["fold"] >= 0, "label"].mean())
    values = dataset.test.set_index("item_id")[["kind", "domain"]]

    def decide(logits: Mapping[str, pd.Series]) -> pd.DataFrame:
        return apply_recipe(recipe, logits, prevalence, values).set_index("item_id")

    return decide, prevalence


def _write(
    path: Path,
    dataset: Dataset,
    votes: pd.DataFrame,
    prevalence: float,
    answer: Answer,
    made_from: Mapping[str, Any],
) -> None:
    """Write the submission with its sidecar, and say what is in it."""
    layout, is_label = dataset.require_test(), answer.output == "label"
    lost = votes.index[votes["fallback"]].tolist()
    doubts = [*answer.doubts, *cut_elsewhere(answer, votes)]
    record = {
        **made_from,
        "rows": len(votes),
        "share_fake": float(votes["pred"].mean()) if is_label else None,
        "fallback": {
            "items": lost,
            "prob": float(votes.loc[lost, "prob"].max()) if lost else prevalence,
            "why": "not decodable; got the share of fakes among the training items",
        },
        "doubts": doubts,
    }
    held = write_submission(path, layout, votes, record, output=answer.output, metric=answer.metric)
    print_not_whole(record["partial"], record["no_face"])
    fake, training = dataset.labels.names[1], f"(training items: {prevalence:.1%})"
    share = f"{votes['pred'].mean():.1%} {fake}" if is_label else f"{votes['prob'].mean():.1%} "
    share += "" if is_label else "P(fake) in the mean"
    print(f"{len(votes)} items, {share} {training}")
    print(f"column {layout.answer_column or answer.output!r} holds {held}")
    for doubt in doubts[len(answer.doubts) :]:
        print(f"WARNING {doubt}")
    if lost:
        print(f"{len(lost)} could not be read and got the fallback: {listed(lost)}")
    print(f"submission: {path}")


def _sidecar(
    name: str, recipe: Recipe, parts: Sequence[Part], manifest_sha256: str
) -> dict[str, Any]:
    """Return what a submission was made from, for the JSON beside it."""
    names = [(recipe.dataset, recipe.scheme, m.model) for m in recipe.members if m.weight != 0]
    return {
        "recipe": name,
        "recipe_sha256": sha256_file(recipe_path(recipe.dataset, name)),
        "dataset": recipe.dataset,
        "manifest_sha256": manifest_sha256,
        "scheme": recipe.scheme,
        "metric": recipe.metric,
        "stages": recipe.stages,
        "members": {member.model: member.weight for member in recipe.members},
        "checkpoints": {f"{part.model} fold {part.fold}": part.checkpoint_sha256 for part in parts},
        "engines": stored.engines_of(parts),
        "extras": {
            extra[2]: read_extra_record(*extra)["kept_sha256"]
            for extra in names
            if is_extra(*extra)
        },
        "scores": recipe.scores,
        "partial": stored.partly_read(parts),
        "no_face": stored.without_face(parts),
    }
