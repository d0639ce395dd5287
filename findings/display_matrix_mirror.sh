#!/usr/bin/env bash
# What OpenCV and PyAV make of a display matrix that mirrors (a phone's front camera, or
# `ffmpeg -display_hflip -i a.mp4 -c copy b.mp4`).
#
# Guess: OpenCV, which turns frames itself, mirrors them too; PyAV's `frame.rotation` is 0 for a
# mirror, for nothing is turned.
# Behaviour: OpenCV 4.14.0.94 turns a frame that is to be mirrored left to right by 180 degrees, and
# leaves one that is to be mirrored top to bottom as it is: it asks FFmpeg for an angle, which a
# mirror does not have. PyAV 18.1.0 reports the same angles, -180 and 0; the matrix itself is in
# `frame.side_data`.
# Seen: mirrored left to right: OpenCV shows 43/21 (PyAV's rotation -180), where 21/43 is right
#       mirrored top to bottom: OpenCV shows 12/34 (PyAV's rotation 0), where 34/12 is right
# Versions: opencv-python-headless 4.14.0.94; av 18.1.0; numpy 2.2.6.
# Why it matters here: faces upside down among upright ones, in some recordings and not in others.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
python3 -m venv venv
venv/bin/pip install -q opencv-python-headless==4.14.0.94 av==18.1.0 numpy==2.2.6
cat >look.py <<'PY'
import struct

import av
import cv2
import numpy as np

H, W = 64, 96
luma = np.kron(np.array([[1, 2], [3, 4]]), np.full((H // 2, W // 2), 45))
picture = np.concatenate([luma, np.full((H // 2, W), 128)]).astype(np.uint8)
with av.open("a.mp4", "w") as file:
    stream = file.add_stream("libx264", 25, options={"qp": "0"})
    stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
    file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
    file.mux(stream.encode(None))
data = bytearray(open("a.mp4", "rb").read())
found = []
for name, a, d, right in (("left to right", -1, 1, "21/43"), ("top to bottom", 1, -1, "34/12")):
    place = data.index(b"tkhd") + 44  # the matrix of a track header of version 0
    struct.pack_into(">9i", data, place, a << 16, 0, 0, 0, d << 16, 0, 0, 0, 1 << 30)
    open("b.mp4", "wb").write(data)
    frame = cv2.VideoCapture("b.mp4", cv2.CAP_FFMPEG).read()[1]
    corners = [frame[y, x].mean() for y in (5, H - 5) for x in (5, W - 5)]
    one, two, three, four = (round((c * 219 / 255 + 16) / 45) for c in corners)
    with av.open("b.mp4") as file:
        angle = next(file.decode(video=0)).rotation
    found.append((f"{one}{two}/{three}{four}", angle))
    print(f"mirrored {name}: OpenCV shows {found[-1][0]} (PyAV's rotation {angle}), "
          f"where {right} is right")
assert found == [("43/21", -180), ("12/34", 0)], found
PY
venv/bin/python look.py
