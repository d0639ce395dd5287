"""A loaded recipe on pictures that are decoded already: frames of a live source.

The same canvases, crops, views and votes as for files, of which there are none here: who asks has
the picture and knows whose faces are in it.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from src.artifacts.oof import CLEAN, DELIVERY_SEED, Levels
from src.config import FaceConfig, InputSpec
from src.data.pixels.deliveries import Arrived, level_named
from src.data.pixels.frames import FrameRows
from src.data.pixels.images import Canvas, center_crop
from src.ensemble.rule import deliveries_of
from src.errors import UserError
from src.faces.crop import Face, crop_face
from src.faces.detectors import Detector, detect_each, detector_of, shrink
from src.inference.loaded import LoadedNet, LoadedRecipe, check_finite
from src.inference.predict import Seen, view_pixels, views_at

Picture = NDArray[np.uint8]
# What the nets said of one face in one picture, or of a whole picture: of each net float64
# (levels x views,).
Look = tuple[NDArray[np.float64], ...]


class PictureJudge:
    """A recipe that judges pictures, and the faces in them.

    Args:
        loaded: the recipe, its nets in memory.

    Raises:
        UserError: its nets find faces by different detectors, which would follow different people.
    """

    def __init__(self, loaded: LoadedRecipe) -> None:
        self.loaded = loaded
        faces = {net.part.model: net.engine.spec.face for net in loaded.crops}
        distinct = {(face.detector, face.detector_sha256) for face in faces.values() if face}
        if len(distinct) > 1:
            each = ", ".join(f"{model} by {face.detector}" for model, face in faces.items() if face)
            raise UserError(
                f"the recipe's members find faces by different detectors ({each}), and a live "
                "source is followed by one: tune a recipe of members that share theirs"
            )
        face = loaded.heaviest(loaded.crops).engine.spec.face if faces else None
        self.detector: Detector | None = None if face is None else detector_of(face)
        stage = deliveries_of(loaded.recipe)
        own, seed = ((), DELIVERY_SEED) if stage is None else (stage.levels, stage.seed)
        self.levels = Levels((CLEAN, *own), seed)
        self._specs = list(dict.fromkeys(net.engine.spec for net in loaded.nets))

    def find(self, picture: Picture) -> list[Face]:
        """Return the faces of a picture, uint8 RGB (height, width, 3), the surest first.

        None where no net crops faces.

        Raises:
            UserError: the detector is not there.
        """
        if self.detector is None:
            return []
        return detect_each(self.detector, [shrink(picture, self.detector)])[0]

    def look(
        self, picture: Picture, faces: Sequence[Face], name: str = "", number: int = 0
    ) -> list[Look]:
        """Return what all nets say of each face of a picture.

        Nets that see whole pictures say the same of every face. Where no net crops faces there is
        one answer, whatever `faces` are.

        Args:
            picture: uint8 RGB (height, width, 3).
            faces: whose crops are judged.
            name: of the source, and ...
            number: ... of the frame in it: what deliveries draw from.

        Raises:
            UserError: a logit is not finite.
        """
        if self.detector is None:
            faces = ()
        elif not faces:
            return []
        pixels = self._pixels(picture, faces, name, number)
        with torch.inference_mode():
            each = [self._run(net, pixels[net.engine.spec]) for net in self.loaded.nets]
        count = max(1, len(faces))
        return [tuple(one[min(k, len(one) - 1)] for one in each) for k in range(count)]

    def _pixels(
        self, picture: Picture, faces: Sequence[Face], name: str, number: int
    ) -> dict[InputSpec, torch.Tensor]:
        """Return uint8 (faces or 1, levels, s, s, 3) of each way of seeing."""
        found: dict[InputSpec, list[list[Picture]]] = {spec: [] for spec in self._specs}
        placed = {spec.face: self._placed(picture, faces, spec.face) for spec in self._specs}
        for level in self.levels.names:
            sent = Arrived(picture)
            if level != CLEAN:
                sent = level_named(level).deliver(picture, name, number, self.levels.seed)
            for spec, squares in found.items():
                canvas, face, parts = Canvas.of(spec), spec.face, [sent.pixels]
                if face is not None:
                    parts = [
                        crop_face(sent.pixels, sent.carry(one), face.margin, align=face.align)
                        for one in placed[face]
                    ]
                squares.append([center_crop(canvas.draw(part), spec.image_size) for part in parts])
        return {
            spec: torch.from_numpy(np.stack([np.stack(level) for level in squares], 1))
            for spec, squares in found.items()
        }

    def _placed(
        self, picture: Picture, faces: Sequence[Face], face: FaceConfig | None
    ) -> Sequence[Face]:
        """Return the faces with the points that aligning takes, where it is asked for."""
        if face is None or not face.align or self.detector is None:
            return faces
        return [self.detector.exact(picture, one) for one in faces]

    def _run(self, net: LoadedNet, pixels: torch.Tensor) -> NDArray[np.float64]:
        """Return logits (n, levels x views) of pixels (n, levels, s, s, 3)."""
        n, levels = pixels.shape[:2]
        flat = pixels.flatten(0, 1).to(self.loaded.compute.chip)
        views = torch.cat([view_pixels(flat, view) for view in net.views])
        found = net.engine(views).double().cpu().numpy().reshape(len(net.views), n, levels)
        logits = found.transpose(1, 2, 0).reshape(n, -1)
        check_finite(net.part, logits)
        return logits

    def views(self, windows: Mapping[str, Sequence[Look]]) -> dict[str, pd.DataFrame]:
        """Return looks as a recipe votes on them: model -> `item_id, fold, view, logit`.

        Args:
            windows: one face or more by a name, each with its looks, one or more, frame by frame.
        """
        names = list(windows)
        counts = [len(looks) for looks in windows.values()]
        place = np.repeat(np.arange(len(names)), counts)
        frame = np.concatenate([np.arange(count) for count in counts])
        looks = [*chain.from_iterable(windows.values())]
        rows = FrameRows(np.arange(len(place)), place, frame)
        there, found = np.ones(len(place), bool), dict[str, list[pd.DataFrame]]()
        for which, net in enumerate(self.loaded.nets):
            seen = Seen(rows, np.stack([look[which] for look in looks]), there, len(names))
            table = seen.table(names, net.part.fold, views_at(self.levels, net.views))
            found.setdefault(net.part.model, []).append(table)
        return {model: pd.concat(tables, ignore_index=True) for model, tables in found.items()}

    def vote(self, windows: Mapping[str, Sequence[Look]]) -> pd.DataFrame:
        """Return the recipe's votes on faces as if the frames of each were a clip of it alone.

        Args:
            windows: see `views`.

        Returns:
            By the names of `windows`: `prob`, `pred`, `threshold`; see `LoadedRecipe.vote`.
        """
        return self.loaded.vote(self.views(windows), "video")
