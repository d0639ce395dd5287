"""One file to its evidence: a recipe that stays in memory looks at it, part by part."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.files import sha256_file
from src.artifacts.oof import CLEAN, split_delivery
from src.artifacts.recipes import read_recipe
from src.compute.request import Compute
from src.data.items.files import kind_of
from src.data.pixels.decode import size_of
from src.data.pixels.formats import is_clip
from src.data.pixels.video import MAX_DECODED, keeping_frames
from src.data.pixels.video_packets import look_ahead
from src.data.provenance.read import check_anchors, provenance_of
from src.ensemble.rule import deliveries_of
from src.ensemble.shift.stability import stability_of
from src.errors import UnreadableImageError, UserError
from src.evidence.chance import Chance, chance_of
from src.evidence.closer import dense, look_closer
from src.evidence.evidence import AtLevel, FileEvidence, FileFacts, Verdict
from src.evidence.far import far_files
from src.evidence.maps import DrawnMaps, Explainer
from src.evidence.risk import RecipeBand, grounds_of
from src.evidence.verdicts import (
    BAND,
    FAR,
    FLIPS,
    NO_FACE,
    PARTIAL,
    UNREADABLE,
    UNSURE,
    WORDS,
    verdicts_of,
)
from src.inference.loaded import ONE_FILE, FileViews, LoadedRecipe, Views
from src.inference.member_logits import at_level, levels_of
from src.inference.stored import ItemsToPredict
from src.inference.trial import LASTING

DELIVERIES = 2  # levels at which a file is looked at besides, where nothing else is asked
STEPS = ("reading", "verdict", "provenance", "stability", "people", "maps")
OnStep = Callable[[str], None]  # told the name of each step as it begins


@dataclass(frozen=True)
class Looking:
    """What is asked of a file."""

    risk: float | None = None  # of wrong ones among sure verdicts; see `Grounds.band`
    deliveries: int | None = DELIVERIES  # levels at which a file is looked at too; 0: none
    frames: int | None = None  # on a clip's timeline; see `dense`
    maps: bool = True  # where a net looks
    far: bool = False  # compare with what was trained on: a pass of another net
    provenance: bool = True  # what the file says of itself
    most_seconds: float | None = None  # of a clip; a longer one is refused
    most_pixels: int | None = None  # of a picture, or a frame; likewise
    lasting: bool = False  # file after file, for as long as it is asked: faster nets are worth it


class Looker:
    """Looks at files by one recipe.

    Args:
        name: of the recipe.
        path: its file.
        compute: where and how fast.
        asked: what is looked for.

    Raises:
        UserError: the recipe's files are gone, or not those it was tuned on; it cannot look at
            files (`LoadedRecipe`); a risk that was asked for cannot be met; the certificates that
            `RVF_C2PA_ANCHORS` names cannot be used.
    """

    def __init__(
        self, name: str, path: Path, compute: Compute, asked: Looking | None = None
    ) -> None:
        self.name, self.asked = name, asked or Looking()
        if self.asked.provenance:
            check_anchors()
        self.recipe = read_recipe(path)
        self.levels = levels_of(self.recipe, self.asked.deliveries or None)
        self.stage = deliveries_of(self.recipe)
        self.chance: Chance | None = None
        self.no_risk = ""  # why there is no band, in words, where one was looked for
        self.band, self.no_band = self._band()
        ahead = LASTING if self.asked.lasting else ONE_FILE
        self.loaded = LoadedRecipe(self.recipe, compute, ahead)
        self.explainer = Explainer(self.loaded) if self.asked.maps else None

    def _band(self) -> tuple[RecipeBand | None, str]:
        """Return the band, or why there is none; a risk that was asked for and fails is raised."""
        risk = self.asked.risk
        try:
            grounds = grounds_of(self.name, self.recipe)
            self.chance = chance_of(grounds.rows)
            return (None, "not_asked") if risk == 0 else (grounds.band(risk), "")
        except UserError as error:
            if risk is not None:
                raise
            self.no_risk = str(error)
            return None, "not_met" if self.chance else "no_rows"

    def look(
        self, path: Path, name: str | None = None, on_step: OnStep | None = None
    ) -> FileEvidence:
        """Return all that is found of a file; nothing of it is kept.

        Args:
            path: the file; its suffix says whether it is a picture or a clip.
            name: what it is called for people; None: as the file is.
            on_step: told each of `STEPS` as it begins.

        Raises:
            UserError: no such file, a kind that is not read, or larger than was asked for. A file
                that is damaged is no error: its evidence says so.
        """
        took: dict[str, float] = {}
        step = _Steps(took, on_step)
        with step("reading"):
            facts = self._facts(path, name or path.name)
        with ExitStack() as stack:
            if facts.kind == "video":
                counts = self.loaded.counts(dense(self.loaded, facts.seconds, self.asked.frames))
                stack.enter_context(keeping_frames(path.parent, path.name, counts))
            return self._evidence(path, facts, took, step)

    def _evidence(
        self, path: Path, facts: FileFacts, took: dict[str, float], step: "_Steps"
    ) -> FileEvidence:
        with step("verdict"):
            items = ItemsToPredict(path.parent, [path.name], [path.name], facts.sha256)
            seen = self.loaded.predict(items)
            clean = self.loaded.answering(seen.views)
            first = self.loaded.vote(clean, facts.kind)
        said: dict[str, Any] | None = None
        if self.asked.provenance:
            with step("provenance"):
                said = provenance_of(path, facts.name).record()
        if first["fallback"].iloc[0]:
            verdict = self._unread(seen, items.item_ids[0])
            return FileEvidence(facts, verdict, provenance=said, took=took)
        with step("stability"):
            votes, stability, flipped = self._stability(items, seen, clean, facts.kind)
        verdict = self._verdict(votes, items, seen, flipped)
        with step("people"):
            close = look_closer(
                self.loaded, items, facts.kind, seen, self.says,
                frames=dense(self.loaded, facts.seconds, self.asked.frames),
            )  # fmt: skip
        drawn = DrawnMaps((), {}, {})
        if self.explainer is not None:
            with step("maps"):
                drawn = self.explainer.draw(close.input, int(votes["pred"].iloc[0]))
        return FileEvidence(
            facts, verdict, close.picture, stability, close.people, close.no_people,
            any(not net.sees_everyone for net in self.loaded.crops), close.crowd,
            close.timeline, drawn.maps,
            "" if self.explainer else "not_asked", drawn.absent, said, took,
            close.pictures | drawn.pictures,
        )  # fmt: skip

    def _facts(self, path: Path, name: str) -> FileFacts:
        kind = kind_of(path.name)
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        if kind is None:
            raise UserError(
                f"{name}: by its name no picture and no clip that is read (.jpg, .png, .webp, "
                ".heic, .mp4, .mov, .webm ...)"
            )
        facts = FileFacts(name, kind, path.stat().st_size, sha256_file(path))
        try:
            facts = _measured(facts, path)
        except UnreadableImageError:
            return facts  # the verdict says so
        most, longest = self.asked.most_pixels, self.asked.most_seconds
        if most is not None and facts.width * facts.height > most:
            raise UserError(
                f"{name}: {facts.width} x {facts.height} pixels; at most {most:,} are looked at "
                "here: make it smaller, or cut a part out"
            )
        if longest is not None and (facts.seconds or 0) > longest:
            raise UserError(
                f"{name}: {facts.seconds:.0f} seconds; at most {longest:.0f} are looked at here: "
                "cut a part out, or allow more (--most-seconds)"
            )
        return facts

    def _stability(
        self, items: ItemsToPredict, seen: FileViews, clean: Views, kind: str
    ) -> tuple[pd.DataFrame, tuple[AtLevel, ...] | None, dict[str, list[str]]]:
        """Return the recipe's votes, the verdict at each level, and where it flips, by file."""
        if self.levels is None:
            return self.loaded.vote(clean, kind), None, {}
        more = self.loaded.predict(items, self.levels, cuts=seen.cuts)
        delivered = self.loaded.answering(more.views)
        own = () if self.stage is None else self.stage.levels
        both = {
            model: pd.concat([table, *(_named_at(delivered[model], level) for level in own)])
            for model, table in clean.items()
        }
        votes = self.loaded.vote(both, kind)
        at = {CLEAN: self.loaded.vote(clean, kind)}
        for level in self.levels.names:
            some = {model: at_level(table, level) for model, table in delivered.items()}
            at[level] = self.loaded.vote(some, kind)
        stable = stability_of(votes, at, self.levels)
        flips = stable.flips.iloc[0]
        levels = {level: at[level if level in at else CLEAN] for level in stable.flips.columns}
        shown = tuple(
            AtLevel(level, float(vote["prob"].iloc[0]), bool(flips[level]))
            for level, vote in levels.items()
        )
        return votes, shown, stable.flipped()

    def says(self, prob: float, threshold: float, pred: int) -> str:
        """Return the word for P(fake): real, fake, or unsure within the band."""
        if self.band is not None:
            sure = self.band.band.is_sure(np.array([prob]), np.array([threshold]), np.array([pred]))
            if not sure[0]:
                return UNSURE
        return str(WORDS[pred])

    def _verdict(
        self,
        votes: pd.DataFrame,
        items: ItemsToPredict,
        seen: FileViews,
        flipped: dict[str, list[str]],
    ) -> Verdict:
        name = items.item_ids[0]
        prob, pred, threshold = (votes[key].iloc[0] for key in ("prob", "pred", "threshold"))
        within = self.says(float(prob), float(threshold), int(pred)) == UNSURE
        lost = [net for net in self.loaded.crops if seen.boxes_of(net).faceless(items.paths)]
        faceless = [net.part.model for net in lost]
        far = None
        if self.asked.far:
            compute = self.loaded.compute
            far = far_files(self.recipe, items, np.ones(1, bool), compute.device, compute.workers)
        reasons = {
            BAND: {name} if within else set(),
            FLIPS: set(flipped),
            NO_FACE: {name} if faceless else set(),
            PARTIAL: set(seen.partial),
            FAR: set() if far is None else far.names,
        }
        details = {
            FLIPS: ", ".join(flipped.get(name, [])),
            NO_FACE: ", ".join(dict.fromkeys(faceless)),
            PARTIAL: seen.partial.get(name, ""),
            FAR: "" if far is None else far.words,
        }
        said = verdicts_of([name], np.array([int(pred)]), np.array([True]), reasons).iloc[0]
        codes = tuple(code for code, files in reasons.items() if name in files)
        return self._made(
            str(said["verdict"]), float(prob), float(threshold), str(WORDS[int(pred)]), codes,
            {code: text for code, text in details.items() if text},
        )  # fmt: skip

    def _unread(self, seen: FileViews, name: str) -> Verdict:
        details = {PARTIAL: seen.partial[name]} if name in seen.partial else {}
        return self._made("", None, self.loaded.rule.threshold, "", (UNREADABLE,), details)

    def _made(
        self,
        said: str,
        prob: float | None,
        threshold: float,
        leans: str,
        reasons: tuple[str, ...],
        details: dict[str, str],
    ) -> Verdict:
        recipe, chance = self.recipe, self.chance
        expected = chance.of(prob) if chance is not None and prob is not None else None
        if self.no_risk:
            details = {**details, "no_risk": self.no_risk}
        models = tuple(member.model for member in recipe.members if member.weight != 0)
        risk = None if self.band is None else self.band.record()
        return Verdict(
            said, prob, threshold, leans, expected,
            None if chance is None else chance.error, None if chance is None else chance.share,
            reasons, details, self.name, recipe.dataset, models, risk, self.no_band,
        )  # fmt: skip


def _named_at(delivered: pd.DataFrame, level: str) -> pd.DataFrame:
    """Return the views at a level under their own names."""
    return delivered[
        delivered["view"].isin(
            [view for view in delivered["view"].unique() if split_delivery(view)[0] == level]
        )
    ]


def _measured(facts: FileFacts, path: Path) -> FileFacts:
    """Return the facts with size and length.

    Raises:
        UnreadableImageError: the file cannot be read.
    """
    if facts.kind == "image":
        data = path.read_bytes()
        if not is_clip(data):
            height, width = size_of(data)
            return replace(facts, width=width, height=height)
    ahead = look_ahead(path, MAX_DECODED)
    info = ahead.info
    return replace(
        facts, width=info.width, height=info.height, seconds=ahead.end or info.duration,
        frames=ahead.frames or info.announced or None,
    )  # fmt: skip


class _Steps:
    """Times steps and tells of them."""

    def __init__(self, took: dict[str, float], on_step: OnStep | None) -> None:
        self.took, self.on_step = took, on_step

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Run a step."""
        if self.on_step is not None:
            self.on_step(name)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.took[name] = round(time.perf_counter() - began, 4)
