"""Fold-clean pseudo-labels: for fold k, test items are labelled by models that never saw fold k.

Pseudo-labels as training rows: Lee, "Pseudo-Label", ICML workshop 2013.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.recipes import Recipe, read_fresh_recipe
from src.config import PseudoConfig
from src.data.folds.overlap import Relatives, find_relatives
from src.data.items.manifest import Dataset
from src.ensemble.extra import is_extra
from src.ensemble.rule import rule_of
from src.ensemble.vote import apply_recipe
from src.errors import UserError
from src.inference import stored
from src.inference.member_logits import member_logits
from src.inference.unfinished import without
from src.training.job import stamped

LOG = logging.getLogger("rvf")
ALWAYS_TRAINED = -1  # the fold of pseudo-labelled rows
_FAR = 1e-6  # a threshold closer to 0 or 1 would make every item as sure as any


@dataclass(frozen=True)
class PseudoLabels:
    """Labels test items for the folds of one model; what folds share is made once."""

    model: str  # the model that will train on them
    config: PseudoConfig  # its `pseudo` section
    dataset: Dataset  # the data set
    scheme: str  # fold scheme

    def add(self, table: pd.DataFrame, fold: paths.FoldName) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Append the test items that a recipe is sure of to the rows (`Job.table`) of a run.

        Only predictions of its members' models of the held-out fold are read; `all` holds nothing
        out and reads those of all folds. Returns the longer table, new rows last with fold -1, and
        what the labels were made from.

        Raises:
            UserError: no such recipe, or it is of another scheme, has changed, contains this very
                model or lacks test predictions; no test item is sure enough.
        """
        votes, views = self._votes(fold)
        sure = surely(votes, self.recipe, self.config.confidence)
        keep, left_out = np.ones(len(votes), bool), {}

        def leave_out(reason: str, out: NDArray[np.bool_]) -> None:
            left_out[reason] = int((keep & out).sum())
            keep[out] = False

        leave_out("unreadable", votes["fallback"].to_numpy())
        leave_out("not sure", np.isnan(sure))
        if fold != paths.ALL:
            held = table.loc[table["fold"] == fold, "item_id"]
            equal, alike = self.relatives.of(set(held))
            leave_out("equal files of held-out items", votes["item_id"].isin(equal).to_numpy())
            leave_out("look-alikes of held-out items", votes["item_id"].isin(alike).to_numpy())
        if self.config.balance:
            share = float(table.loc[table["fold"] != fold, "label"].mean())
            leave_out("balance", ~balance(sure, keep, share))
        labels = votes["pred"][keep].to_numpy(np.int64)
        added = {"real": int((labels == 0).sum()), "fake": int((labels == 1).sum())}
        self._report(fold, len(votes), added, left_out)
        known = stamped(self.dataset)[len(self.dataset.train) :].set_index("item_id")
        known = known[[one for one in ("path", "bytes", "stamp") if one in table]]
        rows = known.loc[votes["item_id"][keep]].reset_index()
        rows = rows.assign(label=labels, group="", fold=ALWAYS_TRAINED)
        source = {
            "recipe": self.config.recipe,
            "recipe_sha256": self._recipe_sha256,
            "views": views,
            "added": added,
            "left_out": left_out,
        }
        return pd.concat([table, rows.astype(table.dtypes)], ignore_index=True), source

    def check(self) -> None:
        """Raise a UserError where no fold could be labelled: see `add`."""
        _ = self.recipe, self._items

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, checked; see `add` for what it raises."""
        path, name = paths.recipe_json(self.dataset.name, self.config.recipe), self.config.recipe
        commands = f"{self._command('tune.py')}, then {self._command('predict_ensemble.py')}"
        if not path.is_file():
            raise UserError(f"{self.model}: pseudo.recipe is {name!r}, and {path} is not there: "
                            f"{commands}")  # fmt: skip
        recipe = read_fresh_recipe(path, self.scheme)
        if any(member.model == self.model and member.weight != 0 for member in recipe.members):
            raise UserError(
                f"{path} has {self.model} itself as a member, which cannot label its own training "
                "rows. Tune without it (tune.py --models ...), and under another name with it "
                "(tune.py --recipe NAME)"
            )
        for member in recipe.members:
            if member.weight != 0 and is_extra(recipe.dataset, recipe.scheme, member.model):
                raise UserError(
                    f"{path}: {member.model} came from elsewhere (--extra), and nothing says which "
                    "folds its test predictions never saw: tune without it (tune.py --models ...)"
                )
        return recipe

    @cached_property
    def relatives(self) -> Relatives:
        """Which test items are copies or look-alikes of which train items."""
        return find_relatives(self.dataset)

    @cached_property
    def _recipe_sha256(self) -> str:
        return sha256_file(paths.recipe_json(self.dataset.name, self.config.recipe))

    @cached_property
    def _items(self) -> stored.ItemsToPredict:
        return stored.items_to_predict(self.dataset)

    def _command(self, script: str) -> str:
        return f"python {script} --data {self.dataset.name} --recipe {self.config.recipe}"

    def _votes(self, fold: paths.FoldName) -> tuple[pd.DataFrame, dict[str, str]]:
        """Return the recipe's votes by the models that may label for a fold, and their files."""
        recipe = self.recipe
        known = sorted({str(of_fold) for _, of_fold in recipe.runs()})
        if fold != paths.ALL and str(fold) not in known:
            raise UserError(
                f"recipe {self.config.recipe!r} knows fold{'s' * (len(known) > 1)} "
                f"{', '.join(known)} of its members; pseudo-labels for fold "
                f"{fold} come from their fold {fold}: train it (python train_folds.py --model "
                f"MEMBER --fold {fold}), then {self._command('tune.py')} and "
                f"{self._command('predict_ensemble.py')}"
            )
        parts = stored.needed_parts(recipe, None if fold == paths.ALL else [fold])
        for part in parts:
            if stored.stored_predictions(part, self._items) is None:
                raise UserError(
                    f"{part.views} is not there, or not of these weights and test items: "
                    f"{self._command('predict_ensemble.py')}"
                )
        logits = member_logits(recipe, parts, self._items)
        test = self.dataset.test.set_index("item_id")[["kind", "domain"]]
        votes = apply_recipe(without(recipe, parts), logits, 0.5, test)
        files = {f"{part.model} fold {part.fold}": sha256_file(part.views) for part in parts}
        return votes, files

    def _report(
        self, fold: paths.FoldName, items: int, added: dict[str, int], left_out: dict[str, int]
    ) -> None:
        lost = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        who = "all folds" if fold == paths.ALL else f"fold {fold} alone"
        if not sum(added.values()):
            raise UserError(
                f"{self.model}: none of the {items} test items may be pseudo-labelled ({lost}); "
                "lower pseudo.confidence in a variant of its own name"
            )
        LOG.info(
            "pseudo-labels by %s (its members' %s): %d of %d test items, %d real, %d fake%s",
            self.config.recipe, who, sum(added.values()), items, added["real"], added["fake"],
            f"; left out: {lost}" if lost else "",
        )  # fmt: skip


def surely(votes: pd.DataFrame, recipe: Recipe, confidence: float) -> NDArray[np.float64]:
    """Return P(fake) of the items that a recipe is sure of, NaN for the others.

    `votes` are those of `vote.apply_recipe`, `confidence` is the least prob of a sure fake and 1
    minus the largest of a sure real item. Probs are moved on the logit scale so that the recipe's
    threshold lies at 0.5: one that calls fake only what is over 0.8 is not sure of 0.85. Hard votes
    are shares of votes and stay as they are.
    """
    prob = votes["prob"].to_numpy(np.float64)
    if rule_of(recipe).voting != "hard":
        threshold = np.clip(votes["threshold"].to_numpy(np.float64), _FAR, 1 - _FAR)
        fake, real = prob * (1 - threshold), (1 - prob) * threshold
        prob = fake / (fake + real)
    pred = votes["pred"].to_numpy()
    sure = ((prob >= confidence) & (pred == 1)) | ((prob <= 1 - confidence) & (pred == 0))
    return np.where(sure & ~votes["fallback"].to_numpy(), prob, np.nan)


def balance(
    prob: NDArray[np.float64], keep: NDArray[np.bool_], fake_share: float
) -> NDArray[np.bool_]:
    """Return which items to keep so that the share of fakes is (nearly) the given one, in (0, 1).

    Of those in `keep`, by P(fake): one class whole, of the other the surest.
    """
    fake, real = np.flatnonzero(keep & (prob > 0.5)), np.flatnonzero(keep & (prob < 0.5))
    fakes = min(len(fake), int(len(real) * fake_share / (1 - fake_share)))
    reals = min(len(real), int(len(fake) * (1 - fake_share) / fake_share))
    kept = np.zeros(len(prob), bool)
    kept[fake[np.argsort(-prob[fake], kind="stable")[:fakes]]] = True
    kept[real[np.argsort(prob[real], kind="stable")[:reals]]] = True
    return kept
