"""Re-compression as an augmentation: once or several times, as pictures that are passed on."""

from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.pixels.images import SUBSAMPLING, reencode

Pass = tuple[str, int, str]  # kind of file, quality, chroma subsampling (of a JPEG)


class Recompress(A.ImageOnlyTransform):
    """Store a picture as JPEG or WebP and read it back.

    albumentations' own `ImageCompression` (2.0.8) gives OpenCV, which expects BGR, an RGB picture:
    red and blue change places in the chroma planes, and the artefacts are those of no real file.

    Args:
        quality: range that each pass draws from, on the scale of libjpeg.
        repeat: range of the number of passes.
        webp: chance of a pass to be WebP.
        chroma: subsamplings of which each JPEG draws one.
        p: chance of a picture to be compressed at all.
    """

    def __init__(
        self,
        quality: tuple[int, int],
        *,
        repeat: tuple[int, int] = (1, 1),
        webp: float = 0.0,
        chroma: tuple[str, ...] = (SUBSAMPLING,),
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.quality, self.repeat, self.webp, self.chroma = quality, repeat, webp, chroma

    def get_params(self) -> dict[str, Any]:
        """Draw the passes from the stream that the whole list shares."""
        draw = self.py_random
        passes: list[Pass] = [
            (
                "webp" if draw.random() < self.webp else "jpeg",
                draw.randint(*self.quality),
                draw.choice(self.chroma),
            )
            for _ in range(draw.randint(*self.repeat))
        ]
        return {"passes": passes}

    def apply(self, img: NDArray[np.uint8], passes: list[Pass], **_: object) -> NDArray[np.uint8]:
        """Return a picture (uint8 RGB) as it comes back from its passes."""
        for kind, quality, chroma in passes:
            img = _webp(img, quality) if kind == "webp" else reencode(img, quality, chroma)
        return img


def _webp(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
