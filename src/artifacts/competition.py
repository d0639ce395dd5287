"""The rules of a competition on what may be handed in, and what predicts, held against them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import fields
from functools import partial
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from src import paths
from src.artifacts.recipes import Member, Recipe
from src.artifacts.runs import has_run, read_run
from src.errors import UserError
from src.strict_yaml import STRICT, Keys, checked

FORWARD = 3  # passes forward in the time of a step of training


@plain_dataclass(frozen=True)
class Load:
    """What predicts, as rules look at it."""

    # nets, a file of weights each: every fold of a member is one; a member from elsewhere counts as
    # one at least
    nets: int
    parameters: int | None  # of all nets together; None where one of them is not known
    # of a picture (of a frame, a face) by one net: 2 with its mirror image, as often again for each
    # level of a stage `deliveries`; None likewise
    views: int | None
    hours: float | None = None  # of predicting the test items; None where that is not known


@dataclass(frozen=True, config=STRICT)
class CompetitionRules(Keys):
    """The `rules:` part of dataset.yaml: what the competition allows to predict with."""

    single_model: bool = False  # one net and no more: no ensemble, and no mean over folds
    tta: bool = True  # false: nothing is looked at twice, so no mirror image, no delivery
    max_hours: Annotated[float, Field(gt=0)] | None = None  # of predicting the test items
    max_params: Annotated[float, Field(gt=0)] | None = None  # of all nets that predict, together
    max_files: Annotated[int, Field(ge=1)] | None = None  # files of weights

    def as_dict(self) -> dict[str, Any]:
        """Return the rules that were given, as a recipe keeps them; empty where all is allowed."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]
        return {key: value for key, value in values.items() if value != getattr(FREE, key)}

    def __str__(self) -> str:
        return ", ".join(f"{key}: {_word(value)}" for key, value in self.as_dict().items())

    def broken_by(self, load: Load) -> list[str]:
        """Return the rules that are broken, each with the figure that breaks it."""
        nets = f"{load.nets} files of weights"
        found = {
            f"single_model ({nets})": self.single_model and load.nets > 1,
            f"tta ({load.views or 'an unknown number of'} views)": not self.tta and load.views != 1,
            f"max_files ({nets})": self.max_files is not None and load.nets > self.max_files,
        }
        if self.max_params is not None:
            if load.parameters is None:
                found["max_params (parameters not known)"] = True
            else:
                words = f"max_params ({in_millions(load.parameters)} parameters)"
                found[words] = load.parameters > self.max_params
        if self.max_hours is not None and load.hours is not None:
            found[f"max_hours (about {load.hours:.2g} h)"] = load.hours > self.max_hours
        return [words for words, broken in found.items() if broken]

    def check_hours(self, max_hours: float | None) -> None:
        """Raise a UserError for a `--max-hours` beyond what the competition gives."""
        if self.max_hours is not None and max_hours is not None and max_hours > self.max_hours:
            raise UserError(
                f"--max-hours {max_hours:g}: the rules of the competition give {self.max_hours:g}"
            )


FREE = CompetitionRules()  # no rules at all


def load_of(
    recipe: Recipe, folds: Sequence[paths.FoldName] | None = None, items: int | None = None
) -> Load:
    """Return what predicts with a recipe, by the records of its runs; `folds` as `Recipe.runs`.

    `items`: number of test items, where hours are wanted. They are estimated at the pace of the
    training; see `_seconds`. Of a run that is yet to be made, another fold of the member speaks.
    """
    runs = recipe.runs(folds)
    records = [_record(recipe, member, fold) for member, fold in runs]
    known = [record for record in records if record is not None]
    whole = len(known) == len(runs)
    look = partial(views_of, one_view=recipe.one_view)
    seconds = [_seconds(record, one_view=recipe.one_view) for record in known]
    hours = None
    if items is not None and whole and None not in seconds:
        hours = recipe.looks * items * sum(each or 0.0 for each in seconds) / 3600
    return Load(
        nets=len(runs),
        parameters=sum(record["parameters"] for record in known) if whole else None,
        views=recipe.looks * max(map(look, known), default=1) if whole else None,
        hours=hours,
    )


def views_of(record: Mapping[str, Any], *, one_view: bool = False) -> int:
    """Return how often a run's net looks at a picture that is delivered in one way."""
    return 2 if record["config"]["tta"] == "flip" and not one_view else 1


def check_obeyed(
    name: str,
    recipe: Recipe,
    own: CompetitionRules,
    folds: Sequence[paths.FoldName] | None = None,
    items: int | None = None,
) -> CompetitionRules:
    """Hold a recipe against a data set's `own` rules, and against those it was made for.

    Returns the rules that hold. `name` is for messages; `folds` as in `Recipe.runs`: `all` alone is
    `--refit`; `items` as in `load_of`: without it hours are not looked at.

    Raises:
        UserError: it breaks a rule; names rule, figure and the way out.
    """
    made_for = read_rules(recipe.rules, f"recipe {name!r}")
    for rules in (own, made_for):
        if rules == FREE:
            continue
        if broken := rules.broken_by(load_of(recipe, folds, items)):
            raise UserError(
                f"recipe {name!r} breaks the rules of the competition ({rules}): "
                f"{', '.join(broken)}; python tune.py --data {recipe.dataset} finds what obeys them"
            )
    return own if own.as_dict() else made_for


def hours_of(recipe: Recipe, own: CompetitionRules) -> float | None:
    """Return the hours that a data set's rules and a recipe's give; None where neither does."""
    both = own.max_hours, read_rules(recipe.rules, "recipe").max_hours
    return min((hours for hours in both if hours is not None), default=None)


def line_on_hours(recipe: Recipe, own: CompetitionRules, items: int | None) -> str:
    """Say how long the test items will take, of how many hours; "" where no rule asks."""
    given = hours_of(recipe, own)
    if given is None:
        return ""
    found = load_of(recipe, items=items).hours
    if found is not None:
        return (
            f"max_hours: about {found:.2g} of {given:g} h for {items} test items, at a third of a "
            "training step each, where it was trained"
        )
    why = "the test items are not here" if items is None else "some member has no pace of training"
    return f"max_hours: {given:g} h, and how long prediction takes is not known: {why}"


def _record(recipe: Recipe, member: Member, fold: paths.FoldName) -> dict[str, Any] | None:
    """Return a run's record, or that of another fold; None for a member from elsewhere."""
    names = (recipe.dataset, recipe.scheme, member.model)
    for one in (fold, *map(int, member.oof_sha256)):
        if has_run(*names, one):
            return read_run(*names, one)
    return None


def _seconds(record: Mapping[str, Any], *, one_view: bool) -> float | None:
    """Return what an item costs in prediction, on the machine that trained; None if not known.

    A step of training is taken for three passes forward: the way back costs two. Its slowest epoch
    counts; where the backbone was never trained, no epoch was paced by it.
    """
    if record["config"]["strategy"] == "feature_extractor":
        return None
    paces = [epoch["items_per_second"] for epoch in record["history"]]
    pace = min(paces, default=record["items_per_second"])
    return views_of(record, one_view=one_view) / (FORWARD * pace) if pace else None


def in_millions(parameters: int) -> str:
    """Return a number of parameters for people."""
    return f"{parameters / 1e6:.1f} M"


def read_rules(stored: dict[str, Any], where: str) -> CompetitionRules:
    """Return rules from plain keys and values.

    Raises:
        UserError: an unknown rule, with the nearest one, or a value that cannot be; names `where`.
    """
    found: CompetitionRules = checked(stored, CompetitionRules, where)
    return found


def _word(value: Any) -> str:  # noqa: ANN401 - of a rule
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}".replace("e+0", "e").replace("e+", "e")
    )
