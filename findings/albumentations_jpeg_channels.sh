#!/bin/sh
# Guess: albumentations' ImageCompression, which is documented for RGB pictures, stores what an RGB
# writer stores: its result at quality q is the JPEG of quality q that Pillow makes.
#
# Behaviour: it hands the RGB array to cv2.imencode, which expects BGR, and does not swap channels.
# The error hides because imdecode swaps back; but the JPEG's luma was computed with the weights of
# red and blue exchanged, and the chroma planes with it. On a picture of saturated colours in fine
# detail the result is 9 to 23 levels (mean) from Pillow's JPEG of the same quality and
# subsampling, where the same call with BGR in and out is within 1; luma loses 1.5 to 3 times as
# much. A photograph of a face loses less. Seen: the lines that this prints.
#
# Versions: albumentations 2.0.8 (the last of the MIT line), opencv-python-headless 4.12.0.88,
# Pillow 12.0.0, numpy 2.2.6.
#
# Why it matters here: detectors of generated pictures are trained against re-compression. Artefacts
# whose red and blue weights are exchanged are those of no camera, site or phone.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    albumentations==2.0.8 opencv-python-headless==4.12.0.88 pillow==12.0.0 numpy==2.2.6
NO_ALBUMENTATIONS_UPDATE=1 "$work/venv/bin/python" - <<'PY'
import io
import sys

import albumentations as A
import numpy as np
from PIL import Image

small = np.random.default_rng(0).choice([0, 255], (32, 32, 3)).astype(np.uint8)
picture = np.asarray(Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC))


def pillow(quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file)).astype(int)


def luma(pixels):
    return pixels @ np.array([0.299, 0.587, 0.114])


fine = True
for quality in (30, 60, 90):
    step = A.ImageCompression("jpeg", (quality, quality), p=1.0)
    as_given = step(image=picture)["image"].astype(int)
    swapped = step(image=np.ascontiguousarray(picture[..., ::-1]))["image"][..., ::-1].astype(int)
    theirs = pillow(quality)
    far, near = np.abs(as_given - theirs).mean(), np.abs(swapped - theirs).mean()
    worse = np.abs(luma(as_given - picture)).mean() / np.abs(luma(theirs - picture)).mean()
    print(
        f"quality {quality}: RGB as documented {far:.1f} levels from Pillow's JPEG, BGR {near:.1f}; "
        f"error of luma {worse:.2f} times Pillow's"
    )
    fine &= far > 8 > 1 > near and worse > 1.3
sys.exit(not fine)
PY
