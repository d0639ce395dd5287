"""How many frames a clip should give, found without decoding it."""

from pathlib import Path
from typing import NamedTuple

import cv2

from src.data.mp4_index import shown_frames
from src.data.video_decoders import ClipInfo

BAD_IN_A_ROW = 64  # failures after which a clip is over, where nothing tells that more must come


class Outlook(NamedTuple):
    """What to expect of a clip.

    Attributes:
        frames: how many; 0 if unknown.
        sure: whether each of these is there if the clip is whole.
        end: seconds from its start at which the last packet of the video is shown; 0 if unknown.
    """

    frames: int
    sure: bool
    end: float


def look_ahead(path: Path, info: ClipInfo, limit: int) -> Outlook:
    """Return how many frames a clip should give, at most `limit`.

    An MP4 lists its frames. Matroska, FLV, ASF and MPEG streams announce the length of the whole
    file, sound included, and the rate: there the packets are counted.
    """
    shown = shown_frames(path, limit)
    if shown:
        return Outlook(shown, True, 0.0)
    packets, end = count_packets(path, limit)
    return Outlook(packets or min(info.announced, limit), False, end)


def count_packets(path: Path, limit: int) -> tuple[int, float]:
    """Return how many packets of a clip's video are to be shown, and when the last one is.

    Returns:
        Their number, at most `limit`; seconds from the start. Both 0 where nothing can be opened.
    """
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened() or not capture.set(cv2.CAP_PROP_FORMAT, -1):
        capture.release()
        return 0, 0.0
    # Of these VP8 alone stores a frame that is never shown as a packet of its own.
    hidden = int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"VP80")
    number, end, bad = 0, 0.0, 0
    while number < limit and bad < BAD_IN_A_ROW:
        if not capture.grab():
            bad += 1
            continue
        bad = 0
        if hidden and not _is_shown(capture):
            continue
        number += 1
        end = max(end, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    return number, end


def _is_shown(capture: cv2.VideoCapture) -> bool:
    fine, packet = capture.retrieve()
    return not fine or bool(int(packet.flat[0]) >> 4 & 1)
