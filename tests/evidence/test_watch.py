"""A source watched to its end: rolling verdicts, frames that make room, sources that misbehave."""

import json
import threading
import time
from dataclasses import fields
from functools import partial

import numpy as np
import pytest

from src.errors import UserError
from src.evidence.live.loop import Watcher, Watching
from src.evidence.live.reader import NewestFrame, Sampler
from src.evidence.live.sources import Caught, ClipFile, LostError
from src.evidence.live.state import LiveEvent, LiveState, Summary
from src.evidence.live.text import clock, state_line, summary_text
from src.inference.pictures import PictureJudge
from tests.conftest import REPO
from tests.evidence.conftest import FAKE, REAL, people
from tests.faces_stub import write_film

NOTHING = people()


class Fake:
    """A source that plays a script: pictures, seconds to wait, exceptions, None for damage."""

    def __init__(self, *parts, is_live=True, comes_back=True, fps=None):
        self.name, self.is_live, self.comes_back = "fake", is_live, comes_back
        self.parts, self.opened, self.closed, self.fps = [list(part) for part in parts], 0, 0, fps

    def open(self):
        if self.opened >= len(self.parts):
            self.opened += 1
            raise UserError("not there")
        self.opened += 1

    def frames(self):
        for number, one in enumerate(self.parts[self.opened - 1]):
            if isinstance(one, BaseException):
                raise one
            if isinstance(one, float):
                time.sleep(one)
            elif one is None:
                yield None
            else:
                picture, damaged = one if isinstance(one, tuple) else (one, False)
                second = number / self.fps if self.fps else None
                yield Caught(partial(np.array, picture), second, picture.shape[:2], damaged)

    def close(self):
        self.closed += 1


def watch(looker, source, **asked):
    """Return the summary, the states and the events of a source."""
    states, events = [], []
    watcher = Watcher(
        PictureJudge(looker.loaded), looker.says, source, Watching(**asked), states.append,
        events.append,
    )  # fmt: skip
    watcher.waits = (0.01,)
    source.open()
    return watcher.run(), states, events


def test_a_verdict_rolls_from_real_to_fake_and_two_people_stay_apart(face_looker, tmp_path):
    """The left one is real for two seconds and fake for two; the right one is fake throughout."""
    path = tmp_path / "turns.mp4"
    parts = [people((4, 4, 40, left), (60, 10, 30, FAKE)) for left in (REAL, FAKE)]
    write_film(path, [parts[0]] * 50 + [parts[1]] * 50)
    found, states, events = watch(face_looker(), ClipFile(path), window=1.0)
    assert (found.ended, found.seen, found.looked_at, found.dropped) == ("end", 100, 20, 0)
    assert [state.frame for state in states] == [*range(0, 100, 5)]
    assert {tuple(sorted(face.number for face in state.faces)) for state in states} == {(1, 2)}
    left, right = ([next(face.verdict for face in state.faces if face.number == number)
                    for state in states] for number in (1, 2))  # fmt: skip
    assert [one.said for one in left[:2]] == ["unsure", "unsure"]
    assert left[0].reasons == ("few frames",)
    assert [one.said for one in left[2:10]] == ["real"] * 8
    assert [one.said for one in left[-5:]] == ["fake"] * 5
    assert [one.said for one in right[2:]] == ["fake"] * 18
    assert max(one.frames for one in left) == 5
    probs = [one.prob for one in left]
    assert probs[9] < left[0].threshold < probs[-1]
    assert [(life.number, life.frames, life.final) for life in found.people] == [
        (1, 20, "fake"), (2, 20, "fake"),
    ]  # fmt: skip
    assert sum(found.people[0].said.values()) == pytest.approx(3.8)
    assert events == []
    assert set(found.took) == {"decode", "detect", "nets", "vote"}
    again = watch(face_looker(), ClipFile(path), window=1.0)[1]
    assert [one.faces for one in again] == [one.faces for one in states]


def test_only_the_largest_are_judged_and_no_face_is_no_verdict(face_looker):
    crowd = people(
        *((4 + 50 * (k % 5), 4 + 50 * (k // 5), 16 + k, REAL) for k in range(20)), size=(256, 256)
    )
    source = Fake([NOTHING, *[crowd] * 4], is_live=False, fps=5.0)
    _, states, _ = watch(face_looker(), source, faces=3)
    assert (states[0].no_verdict, states[0].faces) == ("no_face", ())
    for state in states[1:]:
        judged = [face for face in state.faces if face.verdict is not None]
        assert (len(state.faces), len(judged)) == (20, 3)
        widths = [face.box[2] - face.box[0] for face in state.faces]
        assert widths == sorted(widths, reverse=True)
        assert judged == list(state.faces[:3])


def test_nobodys_verdict_is_older_than_the_window(face_looker):
    """One is judged at a time: first the left one, fake, then the right one, who grows."""
    first = people((4, 4, 40, FAKE), (60, 10, 30, REAL), size=(64, 128))
    second = people((4, 4, 40, FAKE), (60, 4, 48, REAL), size=(64, 128))
    source = Fake([first] * 5 + [second] * 10 + [NOTHING] * 8, is_live=False, fps=5.0)
    found, states, _ = watch(face_looker(), source, faces=1, window=1.0)
    left, right = ([next((face.verdict for face in state.faces if face.number == number), None)
                    for state in states] for number in (1, 2))  # fmt: skip
    assert [one and one.frames for one in left] == [1, 2, 3, 4, 5, 4, 3, 2, 1, *[None] * 14]
    assert [one.said for one in left[2:9]] == ["fake"] * 5 + ["unsure"] * 2
    assert [one and one.frames for one in right] == [
        *[None] * 5, 1, 2, 3, 4, *[5] * 6, 4, 3, 2, 1, *[None] * 4,
    ]  # fmt: skip
    assert states[-1].faces[0].number == 2  # still waited for
    assert [(life.frames, life.final) for life in found.people] == [(5, "fake"), (10, "real")]
    assert found.people[0].said == pytest.approx({"real": 0, "unsure": 0.4, "fake": 0.4})


def test_seconds_of_each_word_are_those_in_which_it_was_said(face_looker):
    """Between two looks at somebody the verdict is that of fewer frames, and then none."""
    face = people((4, 4, 40, FAKE))
    source = Fake([face] * 5 + [NOTHING] * 7 + [face] * 2, is_live=False, fps=5.0)
    found, _, _ = watch(face_looker(), source, window=1.0)
    assert found.people[0].said == pytest.approx({"real": 0, "unsure": 1.0, "fake": 1.0})


def test_people_keep_their_numbers_when_the_size_changes_midway(face_looker):
    large = people((4, 4, 40, REAL), (60, 10, 30, FAKE))
    small = np.ascontiguousarray(large[::2, ::2])
    source = Fake([large] * 3 + [small] * 3, is_live=False, fps=5.0)
    _, states, events = watch(face_looker(), source)
    assert [[face.number for face in state.faces] for state in states] == [[1, 2]] * 6
    assert [
        (event.code, state.width) for event, state in zip(events, states[3:], strict=False)
    ] == [("size", 48)]


def test_damaged_frames_are_counted_and_not_looked_at(face_looker):
    face = people((4, 4, 40, REAL))
    source = Fake([None, (face, True), face, None, face], is_live=False)
    found, states, _ = watch(face_looker(), source, fps=100)
    assert (found.damaged, found.seen, len(states)) == (3, 3, 2)


def test_a_live_source_keeps_the_newest_frame_and_counts_what_made_room():
    """Nobody fetches for long: one frame waits, the last."""
    pictures = [np.full((8, 8, 3), k, np.uint8) for k in range(50)]
    reader = NewestFrame(Fake(pictures, comes_back=False), fps=120, tries=0)
    reader._sampler = Sampler(1e6)
    reader.start()
    reader._thread.join(5)
    last = reader.take(0.1)
    assert last.caught.draw()[0, 0, 0] == 49
    assert (reader.counts.seen, reader.counts.dropped) == (50, 49)
    assert reader.take(0.1) is None
    assert reader.ended == "end"


def test_a_source_that_stalls_is_lost_and_comes_back_is_told_and_survived(face_looker):
    face = people((4, 4, 40, REAL))
    source = Fake([face, 0.9, face, 0.2, LostError("off")], [0.01, face, 0.2, LostError("gone")])
    found, states, events = watch(face_looker(), source, fps=100, stall=0.3, tries=2)
    first, *rest = events
    assert (first.code, first.words) == ("stalled", "fake: no frame for 0.3 s")
    again = next(one for one in rest if one.words == "fake: frames come again")
    others = [one for one in rest if one is not again and one.code != "stalled"]
    assert [one.code for one in others] == ["lost", "back", "lost", "lost", "lost"]
    assert others[0].words == "fake: off; asked again in 0.01 s (try 1 of 2)"
    assert events[-1].words == "fake: not there; given up"
    assert (found.ended, found.lost, found.seen) == ("lost", 1, 3)
    assert [[face.number for face in state.faces] for state in states] == [[1]] * 3
    assert source.closed >= 2


def test_what_goes_wrong_in_the_reader_is_raised_and_the_summary_still_made(face_looker):
    source = Fake([people((4, 4, 40, REAL)), 0.4, ZeroDivisionError("a bug")])
    states = []
    looker = face_looker()
    watcher = Watcher(PictureJudge(looker.loaded), looker.says, source, Watching(), states.append)
    source.open()
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        watcher.run()
    assert (watcher.summary.ended, watcher.summary.looked_at, len(states)) == ("stopped", 1, 1)
    assert threading.active_count() <= before


def test_a_film_by_the_clock_takes_its_time_and_lets_frames_go(face_looker, monkeypatch):
    looker, face = face_looker(), people((4, 4, 40, REAL))
    find = PictureJudge.find
    monkeypatch.setattr(PictureJudge, "find", lambda *a: (time.sleep(0.25), find(*a))[1])
    source = Fake([face] * 25, is_live=False, fps=25.0)
    found, states, _ = watch(looker, source, fps=12.5, realtime=True)
    assert 0.9 < found.seconds < 4
    assert found.dropped > 3
    assert found.looked_at + found.dropped == 13
    assert all(state.latency >= 0.25 for state in states)
    assert states[-1].second == 0.96  # the newest one, not the next in turn


@pytest.fixture
def ages(monkeypatch):
    """Return a call that says how old frames are, by when they come and their own seconds."""
    now = [1000.0]
    monkeypatch.setattr("src.evidence.live.reader.time.monotonic", lambda: now[0])

    def measure(frames):
        reader, found = NewestFrame(Fake([]), fps=5, tries=0), []
        for came, second in frames:
            now[0] = 1000.0 + came
            caught = Caught(lambda: None, second, (8, 8))
            found.append(now[0] - reader._captured(caught))
        return found

    return measure


def test_what_a_stall_has_held_up_is_as_old_as_it_is(ages):
    """Twelve seconds without a frame, then all of them within a second."""
    late = [(17 + k / 60, 5 + k / 5) for k in range(60)]
    found = ages([*((k / 5, k / 5) for k in range(25)), *late, (18.2, 18.2)])
    np.testing.assert_allclose(found[:25], 0, atol=0.01)
    np.testing.assert_allclose(found[25:85], [came - second for came, second in late], atol=0.01)
    assert found[25] > 11.9
    assert found[85] == pytest.approx(0, abs=0.01)


def test_a_clock_that_is_set_or_slow_ages_no_frame(ages):
    for at in (-300.0, 300.0):
        seconds = [1000 + k / 5 + (at if k >= 25 else 0) for k in range(50)]
        np.testing.assert_allclose(ages([(k / 5, one) for k, one in enumerate(seconds)]), 0,
                                   atol=0.01)  # fmt: skip
    slow = ages([(k, k * (1 - 1e-4)) for k in range(0, 200_000, 10)])
    assert max(slow) < 0.01


def test_time_that_goes_back_where_films_are_joined_goes_on():
    sampler = Sampler(5.0)
    seconds = [k / 25 for k in range(100)] * 3
    steady = [sampler.steady(one) for one in seconds]
    assert (np.diff(steady) > 0).all()
    assert steady[-1] == pytest.approx(12.0, abs=0.4)
    assert sum(sampler.is_due(one) for one in steady) == pytest.approx(60, abs=2)


def test_lines_of_json_hold_what_the_docs_say(face_looker):
    source = Fake([people((4, 4, 40, REAL))] * 3, is_live=False, fps=5.0)
    found, states, _ = watch(face_looker(), source)
    docs = (REPO / "docs" / "watch.md").read_text()
    records = [states[0].record(), LiveEvent("size", 1.0, "x").record(), found.record()]
    for record, kind, name in zip(
        records, (LiveState, LiveEvent, Summary), ("state", "event", "summary"), strict=True
    ):
        assert json.loads(json.dumps(record, allow_nan=False))["type"] == name
        keys = {one.name for one in fields(kind)} - {"snapshot"}
        assert set(record) == keys | {"schema", "type"}
        assert [key for key in record if f"`{key}`" not in docs] == []
    assert states[0].snapshot().startswith(b"\xff\xd8")
    assert "#1" in state_line(states[0])
    assert "#1: 00:00.0 to 00:00.4, 3 frames" in summary_text(found)
    assert clock(3723.4) == "1:02:03.4"


@pytest.mark.parametrize(("flag", "value"), [("fps", 0.0), ("window", -1.0), ("faces", 0),
                                             ("fps", float("nan")), ("seconds", -2.0)])  # fmt: skip
def test_what_makes_no_sense_is_refused(flag, value):
    with pytest.raises(UserError, match=f"--{flag}"):
        Watching(**{flag: value})
