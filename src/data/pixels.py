"""Items to square uint8 canvases: each file is decoded once for all sizes that are wanted."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray

from src.config import InputSpec
from src.data import images
from src.data.sources import read_bytes
from src.errors import UserError
from src.progress import track

RAM_SHARE = 0.4  # of the memory that is free; canvases beyond it are decoded in every epoch

cv2.setNumThreads(1)  # parallelism lies in workers and torch; nested pools slow both


class Canvas(NamedTuple):
    """Side and way of resizing of a square that images are brought to."""

    size: int
    geometry: str
    interpolation: str

    @classmethod
    def of(cls, spec: InputSpec) -> "Canvas":
        """Return the canvas that a model's preprocessing starts from."""
        return cls(spec.canvas, spec.geometry, spec.interpolation)


class PixelSource:
    """Canvases of a list of items.

    Args:
        root: folder of the data set.
        paths: manifest paths of the items, in the order of their row numbers.
        canvases: the distinct canvases wanted of each item.
    """

    def __init__(self, root: Path, paths: Sequence[str], canvases: Sequence[Canvas]) -> None:
        self.root = root
        self.paths = list(paths)
        self.canvases = list(dict.fromkeys(canvases))
        self._ram: list[NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.paths)

    def read(self, row: int) -> list[NDArray[np.uint8]]:
        """Return one item's canvases, uint8 (size, size, 3) each, in the order of `canvases`.

        Raises:
            UnreadableImageError: the item cannot be decoded.
        """
        if self._ram is not None:
            return [array[row] for array in self._ram]
        image = images.decode_image(read_bytes(self.root, self.paths[row]))
        return [images.resize_image(image, *canvas) for canvas in self.canvases]

    def read_or_stop(self, row: int) -> list[NDArray[np.uint8]]:
        """Return one item's canvases; raises a UserError naming the item that is unreadable."""
        try:
            return self.read(row)
        except images.UnreadableImageError as error:
            raise UserError(
                f"{self.root / self.paths[row]}: {error}; it was readable when the folds were "
                "made: put the file back"
            ) from None

    def preload(self) -> bool:
        """Decode everything into memory if it fits into a share of what is free.

        Returns:
            Whether it did; if not, items are decoded each time they are read.

        Raises:
            UserError: an item cannot be decoded; names it.
        """
        need = sum(3 * canvas.size**2 for canvas in self.canvases) * len(self)
        if need > RAM_SHARE * psutil.virtual_memory().available:
            return False
        ram = [np.empty((len(self), c.size, c.size, 3), np.uint8) for c in self.canvases]

        def fill(row: int) -> None:
            for array, canvas in zip(ram, self.read_or_stop(row), strict=True):
                array[row] = canvas

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # OpenCV decodes without the GIL
            for _ in track(
                pool.map(fill, range(len(self))), "decoding", total=len(self), unit="img"
            ):
                pass
        self._ram = ram
        return True
