#!/bin/sh
# Guess: the colour step of the published self-blended images (HueSaturationValue with limits of
# (-0.3, 0.3) for hue, saturation and value, always on for the copy that is blended back) changes
# colours by up to 30 %, so that the two parts of a blend differ in colour.
#
# Behaviour: the limits are absolute: of 180 levels of hue and of 255 of saturation and value. 0.3 of
# a level is less than one, so that what is left is the rounding: pixels move by 1.0 to 1.3 of 255
# levels in the mean, of which the conversion to HSV and back does .55 alone. Version 1.1.0 (2021, of
# the paper's time) and 2.0.8 agree. The same limits times 180 and 255 would move them by 50.
# Seen: the lines that this prints.
#
# Versions: albumentations 1.1.0 with opencv-python-headless 4.10.0.84 and numpy 1.26.4;
# albumentations 2.0.8 with opencv-python-headless 4.12.0.88 and numpy 2.2.6.
#
# Why it matters here: who copies the recipe believes that pseudo-fakes differ in colour by this
# step. They differ by the other ones alone (RGBShift, which comes three times in ten, and brightness
# and contrast): leaving it out saves its time, "mending" it makes another, much louder recipe.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'PY'
import sys

import albumentations as A
import cv2
import numpy as np

picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)


def moved(limits):
    hue, others = limits
    step = A.Compose([A.HueSaturationValue((-hue, hue), (-others, others), (-others, others), p=1)])
    found = [np.abs(step(image=picture)["image"].astype(int) - picture).mean() for _ in range(60)]
    return float(np.mean(found))


there = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
back = float(np.abs(cv2.cvtColor(there, cv2.COLOR_HSV2RGB).astype(int) - picture).mean())
as_published, as_shares = moved((0.3, 0.3)), moved((0.3 * 180, 0.3 * 255))
print(
    f"albumentations {A.__version__}: limits of 0.3 move pixels by {as_published:.2f} levels in the "
    f"mean, HSV and back alone by {back:.2f}; 30 % of the range by {as_shares:.1f}"
)
sys.exit(not (0.3 < back < 0.8 < as_published < 1.6 and as_shares > 15))
PY
look() {
    python3 -m venv "$work/$1"
    "$work/$1/bin/pip" install --quiet --disable-pip-version-check \
        "albumentations==$1" "opencv-python-headless==$2" "numpy==$3"
    NO_ALBUMENTATIONS_UPDATE=1 "$work/$1/bin/python" "$work/look.py"
}
look 1.1.0 4.10.0.84 1.26.4
look 2.0.8 4.12.0.88 2.2.6
