"""Masks of manipulated pixels, brought to the canvases that a model sees of their pictures.

What counts: a pixel's largest channel, of its whole range (1 where no value is larger: 0/1 masks;
255; of deeper files 65,535). 0 was left alone, 255 wholly replaced, what lies between is blended.
"""

import logging
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.items.files import read_bytes
from src.data.pixels.decode import decode_values, size_of
from src.data.pixels.images import Canvas, decode_image, resize
from src.data.pixels.reader import ItemReader
from src.errors import UnreadableImageError
from src.machine import decoding_threads
from src.progress import track

LOG = logging.getLogger("rvf")
FAINT = 32  # of 255: a mask that reaches it nowhere is empty (what JPEG leaves in black is less)
_ASPECT = 0.01  # by which the shape of a mask may differ from its picture's, or by a pixel
_NAMED = 3  # masks that a warning names

Mask = NDArray[np.uint8]


def decode_mask(data: bytes) -> Mask:
    """Decode a mask file of any depth, grey or coloured, to uint8 (height, width); see the module.

    Raises:
        UnreadableImageError: it cannot be decoded whole.
    """
    values = decode_values(data)
    values = np.nan_to_num(values.max(axis=2) if values.ndim == 3 else values)
    peak = values.max(initial=0)
    scale = 255 if peak <= 1 else 1 if peak <= 255 else 255 / max(peak, 65535)
    if scale == 1 and values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    return np.rint(np.clip(values, 0, None) * float(scale)).astype(np.uint8)


def lay_over(mask: Mask, height: int, width: int) -> Mask:
    """Bring a mask to its picture's size, where both have one shape.

    Raises:
        UnreadableImageError: the shapes differ by more than a pixel and 1 %.
    """
    if mask.shape == (height, width):
        return mask
    wanted = mask.shape[0] * width / mask.shape[1]  # the height of a picture of that shape
    if abs(wanted - height) > max(1, _ASPECT * height):
        raise UnreadableImageError(
            f"the mask has {mask.shape[1]}x{mask.shape[0]} pixels, its picture {width}x{height}, "
            "of another shape: crop both alike, or take the mask away"
        )
    return resize(mask, height, width, "bilinear")


class MaskReader:
    """The masks of a source's items, through the crop and geometry of its canvases.

    `masks` are their paths below the source's root, "" for none, in the order of `source.paths`.
    What was decoded is kept, packed (a kilobyte or two each), and so are masks that cannot be
    used: those of another shape than their picture, unreadable ones, and those of which a canvas
    shows nothing. Clips have none.
    """

    def __init__(self, source: ItemReader, masks: Sequence[str]) -> None:
        self._source = source
        self._masks = [
            "" if clip else path for path, clip in zip(masks, source.numbers.is_clip, strict=True)
        ]
        self._kept: dict[tuple[int, int], bytes | None] = {}
        self.problems: dict[int, str] = {}  # item -> why its mask cannot be used

    def preload(self, labels: NDArray[np.int64] | None = None) -> None:
        """Decode all masks now, before there are loader processes; says which cannot be used.

        Of reals (`labels` (n,) 0) no mask is used: they are looked at, and those that are not empty
        are named, for one of the two must be wrong.

        Raises:
            UserError: a file is gone, or faces must be looked for and cannot be.
        """
        items = [item for item, path in enumerate(self._masks) if path]
        if not items:
            return
        self._source.find_faces()
        canvases = range(len(self._source.canvases))

        def read(item: int) -> None:
            for canvas in canvases:
                self.read(item, canvas)

        with decoding_threads() as pool:
            for _ in track(pool.map(read, items), "masks", total=len(items), unit="img"):
                pass
        self._say(labels, items)

    def read(self, item: int, canvas: int = 0) -> Mask | None:
        """Return an item's mask on a canvas, uint8 (size, size); None where it has none.

        Raises:
            UserError: a file is gone.
        """
        if not self._masks[item]:
            return None
        key, size = (item, canvas), self._source.canvases[canvas].size
        if key not in self._kept:
            try:
                drawn = self._draw(item, self._source.canvases[canvas])
                self._kept[key] = zlib.compress(drawn.tobytes(), 1)
            except UnreadableImageError as error:
                self._kept[key] = None
                self.problems[item] = str(error)
        packed = self._kept[key]
        if packed is None:
            return None
        return np.frombuffer(bytearray(zlib.decompress(packed)), np.uint8).reshape(size, size)

    def _draw(self, item: int, canvas: Canvas) -> Mask:
        root, path = self._source.root, self._source.paths[item]
        data = read_bytes(root, path)
        mask = decode_mask(read_bytes(root, self._masks[item]))
        if 0 < mask.max(initial=0) < FAINT:
            raise UnreadableImageError(
                f"its largest value is {mask.max()} of 255: an index mask? "
                "0/1 or 0..255 is expected"
            )
        mask = lay_over(mask, *size_of(data))
        # Only the place of a face that is turned upright hangs on what the picture shows.
        aligned = canvas.face is not None and canvas.face.align
        picture: NDArray[Any] = decode_image(data) if aligned else mask
        drawn = canvas.draw_mask(self._source.cuts.cut(path, 0, canvas, picture, mask))
        if drawn.max() < FAINT:
            raise UnreadableImageError("the mask is empty where the model looks")
        return drawn

    def _say(self, labels: NDArray[np.int64] | None, items: Sequence[int]) -> None:
        real = [item for item in items if labels is not None and labels[item] == 0]
        touched = [item for item in real if self.read(item) is not None]
        if touched:
            LOG.warning(
                "WARNING masks: %d reals have one that is not empty, so the label or the mask is "
                "wrong; nothing of them counts as manipulated: %s",
                len(touched), ", ".join(self._masks[item] for item in touched[:_NAMED]),
            )  # fmt: skip
        for item in real:
            self._masks[item] = ""
            self.problems.pop(item, None)
        lost = sorted(self.problems)
        if lost:
            LOG.warning(
                "WARNING masks: %d of %d cannot be used, their items count as having none: %s",
                len(lost), len(items) - len(real),
                "; ".join(f"{self._masks[k]}: {self.problems[k]}" for k in lost[:_NAMED]),
            )  # fmt: skip
