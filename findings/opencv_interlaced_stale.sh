#!/usr/bin/env bash
# What OpenCV 4.13 and 4.14 return for clips that their swscale refuses to convert, and how they
# convert HDR, beside PyAV.
#
# Guess: retrieve() is False for a frame that cannot be converted; colours follow the clip's matrix
# and range alone, as in PyAV and the ffmpeg program, whatever the version.
# Behaviour: 4.12 takes every matrix for BT.601, so a clip tagged BT.709 is off by the levels printed
# below. 4.13.0.92 and 4.14.0.94 return True for interlaced frames, which 4.12 converts, and the
# picture is memory that nobody wrote: here that of the clip read before, or noise. The same for
# the matrices YCgCo, ICtCp, BT.2020 with constant luminance and derived from primaries, and for
# logarithmic transfers. HLG, PQ and P3 are converted to BT.709 from 4.13 on.
# Seen (what retrieve() returned, median levels away from PyAV):
#   4.12.0 plain True 0; bt709 True 2; interlaced True 0; hlg True 1; pq True 1; p3 True 2
#   4.13.0 plain True 0; bt709 True 0; interlaced True 71; hlg True 12; pq True 37; p3 True 7
#   4.14.0 plain True 0; bt709 True 0; interlaced True 71; hlg True 12; pq True 37; p3 True 7
# Versions: opencv-python-headless 4.12.0.88, 4.13.0.92, 4.14.0.94; av 18.1.0; numpy 2.2.6.
# Why it matters here: pictures of other clips, or noise, went into training and prediction with no
# error, other ones in each run; and a model sees other colours after an upgrade of OpenCV.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
for version in 4.12.0.88 4.13.0.92 4.14.0.94; do
  python3 -m venv "$version"
  "$version/bin/pip" install -q "opencv-python-headless==$version" av==18.1.0 numpy==2.2.6
done
cat >make.py <<'PY'
import av
import numpy as np

H, W = 128, 192
ramp = np.linspace(40, 200, W)[None].repeat(H, 0)
chroma = np.concatenate([np.full((H // 4, W), 110), np.full((H // 4, W), 150)])
light = np.concatenate([ramp, chroma]).astype(np.uint8)
dark = np.concatenate([ramp[:, ::-1] / 2, chroma]).astype(np.uint8)
HDR = "colorprim=bt2020:colormatrix=bt2020nc"
CLIPS = {
    "before": (dark, ""), "plain": (light, ""), "bt709": (light, "colormatrix=bt709"),
    "interlaced": (light, "tff=1"), "ycgco": (light, "colormatrix=YCgCo"),
    "constant_luminance": (light, "colormatrix=bt2020c"), "log": (light, "transfer=log100"),
    "hlg": (light, f"{HDR}:transfer=arib-std-b67"), "pq": (light, f"{HDR}:transfer=smpte2084"),
    "p3": (light, "colorprim=smpte432:colormatrix=bt709:transfer=bt709"),
}
for name, (picture, params) in CLIPS.items():
    with av.open(f"{name}.mp4", "w") as file:
        stream = file.add_stream("libx264", 25, options={"qp": "0", "x264-params": params})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for _ in range(2):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        file.mux(stream.encode(None))
PY
4.14.0.94/bin/python make.py
cat >read.py <<'PY'
import av
import cv2
import numpy as np

AS = {"ycgco": 5, "constant_luminance": 9}


def by_cv2(name):
    capture = cv2.VideoCapture(f"{name}.mp4", cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.grab()
    fine, picture = capture.retrieve()
    return fine, picture[:, :, ::-1].astype(int)


def by_av(name):
    with av.open(f"{name}.mp4") as file:
        frame = next(file.decode(video=0))
        return frame.to_ndarray(format="rgb24", src_colorspace=AS.get(name)).astype(int)


names = ["plain", "bt709", "interlaced", "ycgco", "constant_luminance", "log", "hlg", "pq", "p3"]
found = []
for name in names:
    by_cv2("before")
    fine, picture = by_cv2(name)
    found.append(f"{name} {fine} {np.median(abs(picture - by_av(name))):.0f}")
print(cv2.__version__, "; ".join(found))
PY
for version in 4.12.0.88 4.13.0.92 4.14.0.94; do
  "$version/bin/python" read.py 2>/dev/null
done | tee seen.txt
echo "(name, what retrieve() returned, median levels away from PyAV)"
python3 - <<'PY'
import re

rows = dict(line.split(" ", 1) for line in open("seen.txt"))
told = {
    version: {n: (f, int(d)) for n, f, d in re.findall(r"(\w+) (True|False) (\d+)", row)}
    for version, row in rows.items()
}
old, new = told["4.12.0"], [told["4.13.0"], told["4.14.0"]]
assert old["plain"] == old["interlaced"] == ("True", 0), old
assert old["bt709"][1] >= 1 and max(old[name][1] for name in ("hlg", "pq", "p3")) <= 4, old
for one in new:
    assert one["plain"] == one["bt709"] == ("True", 0), one
    # Stale memory is another picture in another run: only that it is not the clip's is checked.
    assert all(one[name][0] == "True" and one[name][1] > 2
               for name in ("interlaced", "ycgco", "constant_luminance", "log")), one
    assert all(one[name][1] > 2 for name in ("hlg", "pq", "p3")), one
PY
