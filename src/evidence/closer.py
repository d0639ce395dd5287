"""A closer look at one file: each person alone, each frame of a clip, and which frames decide."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.oof import UNREADABLE
from src.data.pixels.frames import spaced
from src.data.pixels.images import Canvas, center_crop
from src.data.pixels.video import read_clip, read_picture
from src.data.pixels.video_packets import ClipInfo
from src.evidence.evidence import Moment, Person, Timeline
from src.faces.tracks import Track, place
from src.inference.loaded import (
    FileViews,
    LoadedRecipe,
    Views,
    by_frame,
    frames_of,
    only_person,
    without_frames,
)
from src.inference.stored import ItemsToPredict

MOST_FRAMES = 32  # on the timeline of a clip
SHOWN = 3  # frames of a clip that are shown
WIDE, NARROW, FACE = 960, 480, 192  # px of the longer side of a picture, a frame, a face
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115))  # of people, told apart by all eyes
QUALITY = 85  # of pictures that are shown
# P(fake), the threshold it is held against, and 0/1 -> `real`, `fake` or `unsure`
Says = Callable[[float, float, int], str]
Picture = NDArray[np.uint8]


class Input(NamedTuple):
    """What a net was shown."""

    pixels: Picture  # (s, s, 3)
    person: int | None  # number, from 1, of whose face it is
    second: float | None  # of a clip


class Close(NamedTuple):
    """What a closer look found."""

    people: tuple[Person, ...]
    no_people: str  # code of why nobody is judged alone; ""
    crowd: int  # faces in one frame, at most
    timeline: Timeline | None
    picture: str  # name of the file's own
    pictures: dict[str, bytes]
    input: Input  # that speaks most for the verdict, of the recipe's heaviest net


class Shot(NamedTuple):
    """One frame, or the picture."""

    number: int  # of the frame in its clip
    small: bytes  # JPEG, faces numbered
    faces: list[bytes]  # a JPEG a person
    inputs: list[Picture]  # of the heaviest net: a person each, or the whole picture


class Eye:
    """How the pictures of a file are shown: by which net's faces and crops.

    Args:
        loaded: the recipe.
        items: one file.
        seen: what its nets saw, with the faces that were found.
    """

    def __init__(self, loaded: LoadedRecipe, items: ItemsToPredict, seen: FileViews) -> None:
        self.root, self.path = items.root, items.paths[0]
        self.net = loaded.heaviest(loaded.nets)
        self.spec = self.net.engine.spec
        crops = loaded.crops
        self.key = next(iter(seen.cuts)) if len(seen.cuts) == 1 else frames_of(self.net)
        self.boxes = seen.boxes_of(loaded.heaviest(crops)) if crops else None
        self.own = seen.boxes_of(self.net) if self.spec.face is not None else None
        self.people: list[Track] = [] if self.boxes is None else self.boxes.people(self.path)
        frames = {} if self.boxes is None else self.boxes.frames_of(self.path)
        self.crowd = max(map(len, frames.values()), default=0)

    def shoot(self, picture: Picture, number: int = 0) -> Shot:
        """Return what is kept of a frame, uint8 RGB (height, width, 3)."""
        placed = [place(track, number).face for track in self.people]
        boxes = self.boxes
        faces = [] if boxes is None else [
            jpeg(boxes.cut(picture, boxes.exact(picture, place(track, number)),
                           align=boxes.face.align), FACE)
            for track in self.people
        ]  # fmt: skip
        marked = picture
        if len(placed) > 1:
            marked = picture.copy()
            for number_, face in enumerate(placed):
                draw_face(marked, face.box, number_)
        return Shot(number, jpeg(marked, WIDE), faces, self._inputs(picture, number))

    def decisive(self, shot: Shot, votes: pd.DataFrame, pred: int) -> Input:
        """Return what the heaviest net was shown of the person by whom it decides.

        Of a net that judges everyone that is who speaks most for the verdict, 0/1, by the votes.
        """
        if self.own is None or not self.own.people(self.path):
            return Input(shot.inputs[0], None, None)
        who = _most(votes, pred) if self.net.sees_everyone else 0
        who = min(who, len(shot.inputs) - 1)
        return Input(shot.inputs[who], who + 1, None)

    def _inputs(self, picture: Picture, number: int) -> list[Picture]:
        canvas, own = Canvas.of(self.spec), self.own
        who: Sequence[Track | None] = [None]
        if own is not None:
            who = own.people(self.path) or [None]
        parts = [
            picture if track is None or own is None
            else own.cut(picture, own.exact(picture, place(track, number)), align=own.face.align)
            for track in who
        ]  # fmt: skip
        return [center_crop(canvas.draw(part), self.spec.image_size) for part in parts]


def draw_face(picture: Picture, box: tuple[float, float, float, float], person: int) -> None:
    """Draw a box with the number of a person, from 1, into a picture."""
    x0, y0, x1, y1 = (round(value) for value in box)
    line = max(2, max(picture.shape[:2]) // 240)
    colour = COLOURS[person % len(COLOURS)]
    cv2.rectangle(picture, (x0, y0), (x1, y1), colour, line)
    scale = max(picture.shape[:2]) / 900
    place_ = (x0, max(y0 - 2 * line, round(28 * scale)))
    for ink, wide in (((255, 255, 255), 3 * line), (colour, line)):
        cv2.putText(picture, str(person + 1), place_, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, wide)


def jpeg(picture: Picture, side: int, least: int = 0) -> bytes:
    """Return a picture, uint8 RGB, as a JPEG whose longer side is `least` to `side` pixels."""
    longer = max(picture.shape[:2])
    scale = min(max(longer, least), side) / longer
    if scale != 1:
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        picture = np.asarray(cv2.resize(picture, size, interpolation=way), np.uint8)
    flags = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def look_closer(
    loaded: LoadedRecipe,
    items: ItemsToPredict,
    kind: str,
    seen: FileViews,
    says: Says,
    frames: int | None = None,
) -> Close:
    """Judge the people and the frames of one file.

    Args:
        loaded: the recipe.
        items: the file, which can be read.
        kind: `image` or `video`.
        seen: what the nets saw for the verdict.
        says: turns P(fake) into a word.
        frames: on a clip's timeline (`dense`); None: those of the verdict.
    """
    if frames is not None:
        seen = loaded.predict(items, n_frames=frames)
    eye = Eye(loaded, items, seen)
    votes, no_people = _people(loaded, seen.views, kind, len(eye.people))
    whole = loaded.vote(loaded.answering(seen.views), kind).iloc[0]
    if kind == "video" and len(seen.cuts) == 1:
        return _clip(loaded, eye, seen, votes, no_people, says, int(whole["pred"]))
    shot = eye.shoot(_any_picture(eye, kind))
    pictures = {"picture": shot.small} | _named(shot.faces)
    people = tuple(
        Person(k + 1, *_judged(vote, says), f"face{k + 1}", None, None)
        for k, (_, vote) in enumerate(votes.iterrows())
    )
    shown = eye.decisive(shot, votes, int(whole["pred"]))
    return Close(people, no_people, eye.crowd, None, "picture", pictures, shown)


def _any_picture(eye: Eye, kind: str) -> Picture:
    """Return an image, or the middle frame of a clip whose nets see different frames."""
    if kind == "image":
        return read_picture(eye.root, eye.path)
    return read_clip(eye.root, eye.path, 1).frames[0]


def dense(loaded: LoadedRecipe, seconds: float | None, asked: int | None) -> int | None:
    """Return how many frames of a clip to look at for its timeline; None: those of the verdict do.

    Args:
        loaded: the recipe.
        seconds: the clip's length.
        asked: how many; None: one a second, at most `MOST_FRAMES`, where that is more than the
            verdict's, or these differ between nets; 0: those of the verdict.
    """
    if asked == 0:
        return None
    counts = {frames_of(net)[1] for net in loaded.nets}
    wanted = asked or min(MOST_FRAMES, math.ceil(seconds or 0))
    if asked is None and len({frames_of(net) for net in loaded.nets}) == 1:
        return wanted if wanted > max(counts) else None
    return max(wanted, 1 if asked else max(counts))


def _people(loaded: LoadedRecipe, views: Views, kind: str, count: int) -> tuple[pd.DataFrame, str]:
    """Return the votes on each person, by number, and the code of why there are none."""
    none = pd.DataFrame(columns=["prob", "pred", "threshold"])
    if not loaded.crops:
        return none, "whole_pictures"
    if not count:
        return none, "no_face"
    faces = [net.engine.spec.face for net in loaded.crops]
    if len({(face.detector, face.detector_sha256) for face in faces if face is not None}) > 1:
        return none, "detectors_differ"
    return loaded.vote(
        _apart(views, count, lambda table, k: table.assign(item_id=str(k))), kind
    ), ""


def _apart(views: Views, count: int, as_item: Callable[[pd.DataFrame, int], pd.DataFrame]) -> Views:
    """Return the views of each of `count` people as items; what is unreadable is left out."""
    found = {}
    for model, table in views.items():
        read = table[table["view"] != UNREADABLE]
        each = [as_item(only_person(read, k), k) for k in range(count)]
        found[model] = pd.concat(each, ignore_index=True)
    return found


def _one_frame(table: pd.DataFrame, person: int) -> pd.DataFrame:
    """Return a person's views, each frame an item `frame|person`."""
    frames = by_frame(table)
    return frames.assign(item_id=frames["item_id"] + f"|{person}")


def _judged(vote: pd.Series, says: Says) -> tuple[float, str]:
    prob = float(vote["prob"])
    return prob, says(prob, float(vote["threshold"]), int(vote["pred"]))


def _named(faces: Sequence[bytes]) -> dict[str, bytes]:
    return {f"face{k}": face for k, face in enumerate(faces, 1)}


def _most(votes: pd.DataFrame, pred: int) -> int:
    """Return the row that speaks most for a verdict, 0/1."""
    if votes.empty:
        return 0
    probs = votes["prob"].to_numpy(np.float64)
    return int(probs.argmax() if pred else probs.argmin())


def _clip(
    loaded: LoadedRecipe, eye: Eye, seen: FileViews, votes: pd.DataFrame, no_people: str,
    says: Says, pred: int,
) -> Close:  # fmt: skip
    """Judge a clip frame by frame."""
    kind = "video"
    views = loaded.answering(seen.views)
    frames = loaded.vote({model: by_frame(table) for model, table in views.items()}, kind)
    frames = frames.loc[sorted(frames.index, key=int)]
    numbers = [int(name) for name in frames.index]
    train, evaluated, decoder = eye.key
    clip = read_clip(
        eye.root, eye.path, max(train, evaluated),
        pick=lambda held: spaced(held, evaluated).tolist(), convert=eye.shoot, decoder=decoder,
    )  # fmt: skip
    shots: list[Shot] = clip.frames
    several: dict[str, float] = {}  # by `frame|person`
    if len(votes):
        apart = loaded.vote(_apart(seen.views, len(votes), _one_frame), kind)
        several = {str(name): float(prob) for name, prob in apart["prob"].items()}
    if len(shots) != len(numbers):  # a frame could be read once and not again
        numbers = numbers[: len(shots)]
        frames, shots = frames.iloc[: len(numbers)], shots[: len(numbers)]
    prob = frames["prob"].to_numpy(np.float64)
    order = np.argsort(-prob if pred else prob, kind="stable").tolist()
    deciding, flips = _deciding(loaded, views, [numbers[k] for k in order], pred)
    places = tuple(order[:deciding])
    shown = order[:SHOWN]
    times = [_second(shot.number, clip.info, clip.decoded) for shot in shots]
    moments = tuple(
        Moment(
            shot.number, times[k], float(prob[k]),
            tuple(several[f"{numbers[k]}|{who}"] for who in range(len(votes))),
            f"frame{k}" if k in shown else "",
        )
        for k, shot in enumerate(shots)
    )  # fmt: skip
    people, pictures = [], {f"frame{k}": shots[k].small for k in shown}
    for who, (_, vote) in enumerate(votes.iterrows()):
        own = [moment.people[who] for moment in moments]
        best = int(np.argmax(own) if vote["pred"] else np.argmin(own))
        pictures[f"face{who + 1}"] = shots[best].faces[who]
        track = eye.people[who]
        ends = [_second(number, clip.info, clip.decoded) for number in (min(track), max(track))]
        people.append(Person(who + 1, *_judged(vote, says), f"face{who + 1}", *ends))
    top = shots[order[0]]
    look = eye.decisive(top, votes, pred)._replace(second=times[order[0]])
    rests = min(max(frames_of(net)[1] for net in loaded.nets), clip.decoded)
    line = Timeline(moments, places, flips, rests)
    picture = f"frame{order[0]}"
    return Close(tuple(people), no_people, eye.crowd, line, picture, pictures, look)


def _deciding(
    loaded: LoadedRecipe, views: Views, order: Sequence[int], pred: int
) -> tuple[int, bool]:
    """Return how many frames decide, and whether without them the verdict would be the other.

    `order` are the frames, those that speak most for the verdict first.
    """
    if len(order) < 2:
        return len(order), False
    cut = {model: without_frames(table, order) for model, table in views.items()}
    left = loaded.vote(cut, "video")["pred"]
    flipped = [count for count in range(1, len(order)) if int(left[str(count)]) != pred]
    return (flipped[0], True) if flipped else (min(SHOWN, len(order)), False)


def _second(number: int, info: ClipInfo, decoded: int) -> float:
    """Return when a frame is shown, in seconds, as if all were shown equally long."""
    if info.fps > 0:
        return number / info.fps
    return number / max(1, decoded) * info.duration
