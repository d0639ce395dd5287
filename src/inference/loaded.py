"""A recipe whose nets stay in memory and answer file after file: what looks at uploads and streams.

Each answer is the one that `vote_on_items` gives, and more is seen of a file on the way: its frames
and the people in it one by one, by the same rule.
"""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd

from src.artifacts.oof import MIRRORED, UNREADABLE, WHOLE, Levels, delivered, split_delivery
from src.artifacts.recipes import Recipe
from src.compute.memory import free_bytes
from src.compute.request import Compute
from src.config import InputSpec
from src.data.pixels.faces import FaceBoxes
from src.data.pixels.images import Canvas
from src.data.pixels.reader import FaceCuts
from src.ensemble.rule import rule_of
from src.ensemble.vote import apply_recipe
from src.errors import UserError
from src.inference import stored
from src.inference.engines import Engine
from src.inference.folder import check_looks_itself
from src.inference.member_logits import pool_members
from src.inference.passes import load_engine, predict_with
from src.inference.predict import views_at
from src.inference.stored import ItemsToPredict, Part
from src.inference.trial import Ahead
from src.models.checkpoint import load_checkpoint
from src.models.classifier import Classifier

_VIEW = re.compile(r"(?:full|f(?P<frame>\d+))?(?:face(?P<person>\d+))?(?P<rest>\+.*)?")
ONE_FILE = Ahead(1, 1)
NOBODY = -1  # in place of a person: of a net that sees whole pictures
Views = dict[str, pd.DataFrame]  # model -> `item_id, fold, view, logit`, all its folds


@dataclass(frozen=True, eq=False)
class LoadedNet:
    """One checkpoint of a recipe, in memory."""

    part: Part
    engine: Engine
    views: list[str]  # that it takes of a picture

    @property
    def sees_everyone(self) -> bool:
        """Tell whether all people of an item count for its answer."""
        face = self.engine.spec.face
        return face is not None and face.which == "all"


class FileViews(NamedTuple):
    """What the nets said of some files."""

    views: Views  # with a view a person where a net crops faces, and a level before each
    partial: dict[str, str]  # file -> what is wrong with one read only in part
    # how frames of clips are seen -> the faces found, for every canvas of those nets
    cuts: dict[tuple[int, int, str], FaceCuts]

    def boxes_of(self, net: "LoadedNet") -> FaceBoxes:
        """Return the faces that a net's crops were cut by; of a net that crops faces."""
        face = net.engine.spec.face
        assert face is not None
        key = frames_of(net)  # of other frames, where so many were asked for
        cuts = self.cuts[key if key in self.cuts else next(iter(self.cuts))]
        return cuts.boxes[replace(face, which="all")]


class LoadedRecipe:
    """A recipe, ready to answer.

    Args:
        recipe: members and stages.
        compute: where and how fast.
        ahead: how much will be asked; of one file nets run as they are.

    Raises:
        UserError: as `vote_on_items`; or thresholds by domain, which no file has; or weights that
            do not fit into memory together.
    """

    def __init__(self, recipe: Recipe, compute: Compute, ahead: Ahead = ONE_FILE) -> None:
        check_looks_itself(recipe)
        self.recipe, self.rule = recipe, rule_of(recipe)
        if self.rule.by == "domain":
            raise UserError(
                "the recipe has thresholds by domain, and a file that comes alone is of none: tune "
                "one without (tune.py --recipe NAME --thresholds global)"
            )
        self.compute, self.ahead = compute.for_items(1), ahead
        parts = stored.check_recipe(recipe)
        self._check_memory(parts)
        self.nets = [self._load(part) for part in parts]

    def _check_memory(self, parts: Sequence[Part]) -> None:
        needed = sum(part.checkpoint.stat().st_size for part in parts)
        free = free_bytes(self.compute.chip)
        if needed > free:
            raise UserError(
                f"the recipe's {len(parts)} checkpoints hold {needed / 1e9:.1f} GB of weights, and "
                f"{free / 1e9:.1f} GB are free on {self.compute.chip}: merge the folds of a member "
                "(python -m src merge), tune a recipe of fewer (tune.py --models), or let "
                "predict_ensemble.py --input-dir load them one after the other"
            )

    def _load(self, part: Part) -> LoadedNet:
        name = f"{part.model} fold {part.fold}"
        wanted = (part.checkpoint, part.checkpoint_sha256, name)
        engine, views = load_engine(*wanted, self.compute, self.ahead)
        if part.one_view:
            views = [view for view in views if not view.endswith(MIRRORED)]
        return LoadedNet(part, engine, views)

    def counts(self, n_frames: int | None = None) -> set[int]:
        """Return how many frames of a clip the nets ask for, and what else is asked for."""
        own = {max(frames_of(net)[:2]) for net in self.nets}
        return own if n_frames is None else own | {n_frames}

    @property
    def crops(self) -> list[LoadedNet]:
        """Return the nets that see faces and not whole pictures."""
        return [net for net in self.nets if net.engine.spec.face is not None]

    def heaviest(self, nets: Sequence[LoadedNet]) -> LoadedNet:
        """Return the first net of the member that counts most, of some of the nets."""
        weight = {member.model: abs(member.weight) for member in self.recipe.members}
        return max(nets, key=lambda net: weight[net.part.model])

    def classifier(self, model: str) -> tuple[Part, Classifier]:
        """Return the first fold's net of a member as torch has it, for maps of where it looks."""
        part = next(net.part for net in self.nets if net.part.model == model)
        return part, load_checkpoint(part.checkpoint, self.compute.chip)[0]

    def predict(
        self,
        items: ItemsToPredict,
        levels: Levels | None = None,
        *,
        n_frames: int | None = None,
        cuts: Mapping[tuple[int, int, str], FaceCuts] | None = None,
    ) -> FileViews:
        """Look at files with all nets, at every person where nets crop faces.

        Nothing of the files is kept on disk.

        Args:
            items: the files.
            levels: at which they are delivered; None: as they are.
            n_frames: of a clip, evenly spaced, in place of those that the recipe looks at.
            cuts: of an earlier look at the same frames of the same files.

        Raises:
            UserError: a logit is not finite; memory ran out; a face detector is not there.
        """
        seen: dict[str, list[pd.DataFrame]] = {}
        partial: dict[str, str] = {}
        known = dict(cuts or {})
        ready = [self._looking(net, n_frames) for net in self.nets]
        for key, group in groupby(sorted(ready, key=frames_of), frames_of):
            nets = list(group)
            faces = known.get(key)
            if faces is None:
                faces = self._faces(items, [net.engine.spec for net in nets])
            known[key] = faces
            loaded = [(net.engine, net.views) for net in nets]
            each, notes, _ = predict_with(loaded, items, self.compute, levels=levels, cuts=faces)
            partial |= notes
            for net, found in zip(nets, each, strict=True):
                check_finite(net.part, found.logits[found.there])
                table = found.table(items.item_ids, net.part.fold, views_at(levels, net.views))
                seen.setdefault(net.part.model, []).append(table)
        views = {model: pd.concat(tables, ignore_index=True) for model, tables in seen.items()}
        return FileViews(views, partial, known)

    def _looking(self, net: LoadedNet, n_frames: int | None) -> LoadedNet:
        """Return the net as it looks at every person, and at so many frames."""
        spec, engine = net.engine.spec, copy.copy(net.engine)
        if spec.face is not None:
            spec = replace(spec, face=replace(spec.face, which="all"))
        if n_frames is not None:
            frames = replace(spec.frames, train=n_frames, eval=n_frames)
            spec = replace(spec, frames=frames)
        engine.spec = spec
        return replace(net, engine=engine)

    def _faces(self, items: ItemsToPredict, specs: Sequence[InputSpec]) -> FaceCuts:
        canvases = [Canvas.of(spec) for spec in specs]
        return FaceCuts(items.root, canvases, specs[0].frames, keep=False)

    def answering(self, views: Mapping[str, pd.DataFrame]) -> Views:
        """Return the views that count for the answer: of most face nets the first person's."""
        everyone = {net.part.model for net in self.nets if net.sees_everyone}
        return {
            model: table if model in everyone else only_person(table, 0)
            for model, table in views.items()
        }

    def vote(self, views: Mapping[str, pd.DataFrame], kind: str) -> pd.DataFrame:
        """Return the recipe's votes on what views are of, all images or all clips.

        Returns:
            By item_id: `prob`, `pred`, `fallback` (nothing could be read), `threshold`; as
            `apply_recipe`.
        """
        pools = {net.part.model: net.engine.spec.frames.pool for net in self.nets}
        logits = pool_members(self.recipe, views, pools)
        ids = next(iter(logits.values())).index
        values = pd.DataFrame({"kind": kind, "domain": ""}, index=ids)
        return apply_recipe(self.recipe, logits, 0.5, values).set_index("item_id")


def frames_of(net: LoadedNet) -> tuple[int, int, str]:
    """Return how a net sees clips: as `FileViews.cuts` is keyed."""
    frames = net.engine.spec.frames
    return frames.train, frames.eval, frames.decoder


def check_finite(part: Part, logits: np.ndarray) -> None:
    """Raise a UserError where a logit of a checkpoint is not finite."""
    if not np.isfinite(logits).all():
        raise UserError(
            f"{part.model} fold {part.fold}: a logit is not finite; look again with --precision "
            "fp32"
        )


def named(views: Iterable[str]) -> pd.DataFrame:
    """Return what the names of views say, by name: `level, frame, person, rest`.

    `frame` is -1 of an image, `person` is `NOBODY` of a net that sees whole pictures; `rest` is
    `+flip` or nothing. An unreadable one has no row.
    """
    rows = {}
    for view in views:
        level, own = split_delivery(view)
        match = _VIEW.fullmatch(own)
        if own == UNREADABLE or match is None:
            continue
        frame, person = match["frame"], match["person"]
        rows[view] = (level, -1 if frame is None else int(frame),
                      NOBODY if person is None else int(person), match["rest"] or "")  # fmt: skip
    return pd.DataFrame.from_dict(rows, "index", columns=["level", "frame", "person", "rest"])


def only_person(table: pd.DataFrame, person: int) -> pd.DataFrame:
    """Return the views of one person of a net that crops faces, named as if there were no other.

    Those of a net that sees whole pictures, and of what could not be read, are returned as they
    are.
    """
    names = named(table["view"].unique())
    mine = names[names["person"].isin([NOBODY, person])]
    new = {view: delivered(row.level, _own(row.frame) + row.rest) for view, row in mine.iterrows()}
    kept = table[table["view"].isin([*new, UNREADABLE])]
    return kept.assign(view=kept["view"].map(lambda view: new.get(view, view)))


def _own(frame: int) -> str:
    return WHOLE if frame < 0 else f"f{frame:02d}"


def by_frame(table: pd.DataFrame) -> pd.DataFrame:
    """Return the views of one clip as if each frame were a picture: `item_id` is its number.

    People stay apart, as `full` of one and as `faceN` of several.
    """
    names = named(table["view"].unique())
    names = names[names["frame"] >= 0]
    several = len(names["person"].unique()) > 1
    kept = table[table["view"].isin(names.index)]
    rows = names.loc[kept["view"]]
    who = rows["person"].map(lambda one: f"face{one}" if several else WHOLE)
    return kept.assign(
        item_id=rows["frame"].map("{:d}".format).to_numpy(),
        view=(who + rows["rest"]).to_numpy(),
    )


def without_frames(table: pd.DataFrame, ordered: Sequence[int]) -> pd.DataFrame:
    """Return a clip's views again and again: as item `k` without the first k of some frames."""
    names = named(table["view"].unique())
    frame = table["view"].map(names["frame"])
    return pd.concat(
        [
            table[~frame.isin(ordered[:count])].assign(item_id=str(count))
            for count in range(1, len(ordered))
        ],
        ignore_index=True,
    )
