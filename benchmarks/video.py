"""Frames of clips, side by side: CPU time a clip, and whether frame i is frame i.

  python benchmarks/video.py ../shared/data/videos         every clip below the folder
  uv run --with torchcodec python benchmarks/video.py DIR  against torchcodec too

Every way returns 16 evenly spaced frames of each clip, whole and of a copy cut off at 60 % of its
frames (index first, as streaming wants it). Each is held against a full decode by the same library
from the start of the same file: exact frames are byte-equal to frame i; a frame that is handed out
where the file has none any more is stale.
"""

import argparse
import importlib
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np

from src.data.items.files import VIDEO_SUFFIXES
from src.data.pixels.frames import spaced
from src.data.pixels.video import read_frames
from src.data.pixels.video_decoders import DECODERS, UnreadableVideoError

COUNT = 16
KEPT = 0.6
SLOWER = 1.1
Picture = np.ndarray[Any, Any]
Found = dict[int, Picture]


def ours(path: Path, decoder: str = "pyav") -> Found:
    """Return our frames by their number."""
    clip = read_frames(path, COUNT, decoder=decoder)
    return dict(zip(clip.indices.tolist(), clip.frames, strict=True))


def opencv_all(path: Path) -> Found:
    """Grab every frame and convert those that are wanted, nothing else: the default before PyAV."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted = set(spaced(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), COUNT).tolist())
    found, number = {}, 0
    while capture.grab():
        if number in wanted:
            found[number] = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
        number += 1
    capture.release()
    return found


def opencv_seek(path: Path) -> Found:
    """Seek to each frame, as many published loaders do."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    found = {}
    for place in spaced(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), COUNT).tolist():
        capture.set(cv2.CAP_PROP_POS_FRAMES, place)
        fine, frame = capture.read()
        if fine:
            found[place] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    capture.release()
    return found


def torchcodec_exact(path: Path) -> Found:
    """Let torchcodec find them, exactly."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    places = spaced(len(decoder), COUNT).tolist()
    frames = decoder.get_frames_at(places).data.numpy()
    return dict(zip(places, frames, strict=True))


def torchcodec_all(path: Path, wanted: list[int]) -> tuple[Found, int]:
    """Decode one frame after the other with torchcodec."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    found: Found = {}
    for number in range(len(decoder)):
        try:
            frame = decoder[number]
        except RuntimeError:  # the file ends here, whatever its header says
            return found, number
        if number in wanted:
            found[number] = frame.numpy()
    return found, len(decoder)


def all_of(decoder: str) -> Callable[[Path, list[int]], tuple[Found, int]]:
    """Return a function that decodes one frame after the other with one of our decoders."""

    def decode(path: Path, wanted: list[int]) -> tuple[Found, int]:
        stream, number, found = DECODERS.get(decoder)(path, 0), 0, {}
        for fine in stream.grabs():
            if not fine:
                continue
            frame = stream.retrieve() if number in wanted else None
            if frame is not None:
                found[number] = frame
            number += 1
        stream.close()
        return found, number

    return decode


def cut_off(path: Path, place: Path) -> Path:
    """Write a copy of an mp4 with its index first, without the last part of its frames."""
    data, boxes, start = path.read_bytes(), {}, 0
    while start < len(data):
        size, name = struct.unpack(">I4s", data[start : start + 8])
        size = struct.unpack(">Q", data[start + 8 : start + 16])[0] if size == 1 else size
        boxes[name] = (start, start + size)
        start += size
    begin, end = boxes[b"moov"]
    index = bytearray(data[begin:end])
    if begin > boxes[b"mdat"][0]:
        place_of = 0
        while (place_of := index.find(b"stco", place_of)) > 0:
            count = struct.unpack(">I", index[place_of + 8 : place_of + 12])[0]
            for number in range(count):
                here = place_of + 12 + 4 * number
                offset = struct.unpack(">I", index[here : here + 4])[0]
                index[here : here + 4] = struct.pack(">I", offset + len(index))
            place_of += 4
        head = boxes[b"ftyp"][1]
        data = data[:head] + bytes(index) + data[head:begin] + data[end:]
        frames_start = boxes[b"mdat"][0] + len(index)
    else:
        frames_start = boxes[b"mdat"][0]
    length = boxes[b"mdat"][1] - boxes[b"mdat"][0]
    place.write_bytes(data[: frames_start + int(KEPT * length)])
    return place


def measure(
    name: str, read: Callable[[Path], Found], reference: Callable[..., Any], files: list[Path],
    repeats: int,
) -> list[str]:  # fmt: skip
    """Return a row: milliseconds of CPU a clip, exact frames, stale frames, clips that failed."""
    taken, exact, stale, asked, failed = [], 0, 0, 0, 0
    for path in files:
        times, found = [], {}
        try:
            for _ in range(repeats):
                began = time.process_time()
                found = read(path)
                times.append(time.process_time() - began)
        except (UnreadableVideoError, RuntimeError, IndexError, ValueError, OSError) as error:
            if not failed:
                print(f"{name}: {str(error).strip().splitlines()[0]}")
            failed += 1
            asked += COUNT
            continue
        taken.append(min(times))
        right, total = reference(path, list(found))
        exact += sum(k in right and np.array_equal(right[k], frame) for k, frame in found.items())
        stale += sum(k >= total for k in found)
        asked += COUNT
    speed = f"{1000 * float(np.mean(taken)):.0f}" if taken else "-"
    return [name, speed, f"{exact}/{asked}", str(stale), str(failed)]


def beside(files: list[Path], repeats: int) -> tuple[float, float]:
    """Return the CPU seconds of our frames and of OpenCV's, taken in turns, the least of each."""
    sums = [0.0, 0.0]
    for path in files:
        taken: list[list[float]] = [[], []]
        for _ in range(repeats):
            for place, read in enumerate((ours, opencv_all)):
                began = time.process_time()
                read(path)
                taken[place].append(time.process_time() - began)
        sums = [total + min(one) for total, one in zip(sums, taken, strict=True)]
    return sums[0], sums[1]


def ways() -> list[tuple[str, Callable[[Path], Found], Callable[..., Any]]]:
    """Return what there is to compare on this machine."""
    found = [
        ("this repo (PyAV, start to end)", ours, all_of("pyav")),
        ("OpenCV, start to end", opencv_all, all_of("opencv")),
        ("OpenCV, seek to each frame", opencv_seek, all_of("opencv")),
        ("this repo (decoder: opencv)", lambda path: ours(path, "opencv"), all_of("opencv")),
    ]
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, RuntimeError, OSError) as error:
        print(f"torchcodec cannot be imported: {str(error).strip().splitlines()[0]}")
    else:
        found.append(("torchcodec, exact", torchcodec_exact, torchcodec_all))
    return found


def main() -> None:
    """Print one table for whole clips and one for clips that were cut off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--clips", type=int, default=100, help="at most")
    arguments = parser.parse_args()
    every = sorted(p for p in arguments.folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    files = every[: arguments.clips]
    known = ways()
    rows = {}
    with tempfile.TemporaryDirectory() as home:
        mp4 = [path for path in files if path.suffix.lower() == ".mp4"]
        cut = [cut_off(path, Path(home) / path.name) for path in mp4]
        for title, some in (("whole", files), (f"cut off at {KEPT:.0%}", cut)):
            print(f"\n{len(some)} clips, {title}; one thread each, {os.cpu_count()} cores here")
            print(f"{'way':<36}{'CPU ms':>10}{'exact':>10}{'stale':>7}{'failed':>8}")
            for way in known:
                row = measure(*way, some, arguments.repeats)
                rows[title, way[0]] = row
                print(f"{row[0]:<36}{row[1]:>10}{row[2]:>10}{row[3]:>7}{row[4]:>8}", flush=True)
    own = [row for (_, name), row in rows.items() if name.startswith("this repo (PyAV")]
    whole = own[0]
    fine = len(set(whole[2].split("/"))) == 1
    print(f"\n{'ok' if fine else 'short'} exact: {whole[2]} frames of whole clips (target: all)")
    stale = sum(int(row[3]) for row in own)
    print(f"{'ok' if stale == 0 else 'short'} stale: {stale} (target 0)")
    mine, plain = beside(files, max(3, arguments.repeats))
    ratio = mine / plain
    word = "ok" if ratio <= SLOWER else "short"
    print(f"{word} CPU time: {ratio:.2f} of OpenCV's, in turns (target {SLOWER} at most)")


if __name__ == "__main__":
    main()
