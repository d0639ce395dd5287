import time

import numpy as np
import pytest

from src.faces.crop import Face, between, inside, iou
from src.faces.tracks import MAX_FACES, link, people, place


def face(x, y, side=10.0, score=0.99):
    return Face((x, y, x + side, y + side), score)


def test_overlap_by_counting_pixels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        boxes = [sorted(rng.integers(0, 20, 2)) + sorted(rng.integers(0, 20, 2)) for _ in "ab"]
        drawn = np.zeros((2, 20, 20), bool)
        for canvas, (x0, x1, y0, y1) in zip(drawn, boxes, strict=True):
            canvas[y0:y1, x0:x1] = True
        union = (drawn[0] | drawn[1]).sum()
        want = (drawn[0] & drawn[1]).sum() / union if union else 0.0
        one, other = ((x0, y0, x1, y1) for x0, x1, y0, y1 in boxes)
        assert iou(one, other) == pytest.approx(want)


def test_two_people_who_pass_each_other_stay_two():
    frames = {k: [face(3 * k, 0), face(30 - 3 * k, 14)] for k in range(10)}
    frames[5].reverse()  # a detector's order means nothing
    tracks = link(frames)
    assert [len(track) for track in tracks] == [10, 10]
    assert [f.box[1] for f in tracks[0].values()] == [0] * 10
    assert [f.box[1] for f in tracks[1].values()] == [14] * 10


def test_a_face_joins_the_track_it_overlaps_most_and_only_one():
    frames = {0: [face(0, 0), face(4, 0)], 1: [face(4, 0), face(1, 0)]}
    assert [[f.box[0] for f in track.values()] for track in link(frames)] == [[0, 1], [4, 4]]


def test_the_largest_is_the_largest_over_all_frames():
    near, far = face(0, 0, side=30), face(60, 60, side=20)
    frames = {0: [near, far], 1: [far], 2: [far], 3: [far]}
    assert people(frames)[0] == {0: far, 1: far, 2: far, 3: far}  # 4 x 400 > 900


def test_a_doubtful_face_counts_only_where_no_face_is_sure():
    wall, true = face(0, 0, side=50, score=0.9), face(60, 0, score=0.99)
    assert people({0: [wall, true]}) == [{0: true}]
    assert people({0: [wall, true]}, sure=wall.score)[0] == {0: wall}  # another detector's
    assert people({0: [wall]}) == [{0: wall}]
    assert people({0: [], 1: []}) == people({}) == []


def test_further_people_are_seen_often_enough_and_not_too_many():
    crowd = [face(20 * k, 0, side=10 + k) for k in range(5)]
    assert len(people({0: crowd})) == MAX_FACES
    passer = {k: [face(0, 0, side=20)] + ([face(50, 0)] if k == 0 else []) for k in range(8)}
    assert len(people(passer)) == 1  # seen in one frame of eight


def test_a_frame_without_the_face_takes_it_from_its_neighbours():
    track = {2: face(0, 0), 6: face(40, 8)}
    assert place(track, 2) == (face(0, 0), False)
    assert place(track, 3) == (face(10, 2), True)
    assert place(track, 0) == (face(0, 0), True)
    assert place(track, 9) == (face(40, 8), True)


def test_points_move_with_the_box_and_are_lost_with_one_of_them():
    one = Face((0, 0, 2, 2), 0.9, ((0.0, 0.0),) * 5)
    other = Face((4, 4, 6, 6), 1.0, ((4.0, 8.0),) * 5)
    assert between(one, other, 0.25) == Face((1, 1, 3, 3), 0.9, ((1.0, 2.0),) * 5)
    assert between(one, other._replace(points=None), 0.5).points is None


def test_boxes_mostly_outside_of_the_picture_are_left_out():
    picture = np.zeros((20, 30, 3), np.uint8)
    kept = [face(-4, 0), face(25, 15)]
    assert inside([*kept, face(-6, 0), face(100, 100), face(26, 16)], picture) == kept[:1]


def boxes_of(track, numbers):
    return [place(track, number).face.box for number in numbers]


@pytest.mark.parametrize("pace", [0.2, 0.6, 1.0, 1.8])
def test_a_head_that_moves_any_pace_is_one_person(pace):
    frames = {20 * k: [face(100 * pace * k, 100, side=100)] for k in range(16)}
    (person,) = people(frames)
    assert person == {number: faces[0] for number, faces in frames.items()}


def test_where_a_walking_head_is_not_found_it_lies_between():
    frames = {20 * k: [face(60 * k, 100, side=100)] for k in range(9)}
    frames[80] = []
    (person,) = people(frames)
    assert place(person, 80) == (face(240, 100, side=100), True)
    assert sorted(person) == [k for k in frames if k != 80]


@pytest.mark.parametrize(
    ("pace", "other_pace", "x", "y"),
    [(60, 60, 250, 0), (60, 60, 150, 0), (60, -60, 300, 130), (60, 0, 400, 150), (0, 5, 120, 0)],
)
def test_two_people_who_move_stay_two(pace, other_pace, x, y):
    one = [face(1000 + pace * k, 100, side=100) for k in range(12)]
    other = [face(1000 + x + other_pace * k, 100 + y, side=100) for k in range(12)]
    frames = {3 * k: [one[k], other[k]][:: 1 if k % 2 else -1] for k in range(12)}
    found = sorted([face.box for face in track.values()] for track in people(frames))
    assert found == sorted([face.box for face in faces] for faces in (one, other))


@pytest.mark.parametrize(
    ("boxes", "are_one"),
    [
        ([face(0, 0), face(19, 0)], True),
        ([face(0, 0), face(21, 0)], False),  # too far away
        ([face(0, 0, side=14), face(15, 0)], True),
        ([face(0, 0, side=16), face(20, 0)], False),  # of another size
        # The way that a head may go grows with the frames between, for so long.
        ([face(0, 0), face(30, 0)], False),
        ([face(0, 0), None, face(30, 0)], True),
        ([face(0, 0), None, None, None, face(70, 0)], True),
        ([face(0, 0), None, None, None, None, face(70, 0)], False),
        # What overlaps is one person after any time: IoU 5 / 15 = 0.33, 4.5 / 15.5 = 0.29.
        ([face(0, 0), *[None] * 38, face(5, 0)], True),
        ([face(0, 0), *[None] * 38, face(5.5, 0)], False),
    ],
)
def test_a_head_of_another_size_or_too_far_away_is_another(boxes, are_one):
    tracks = link({7 * k: [] if box is None else [box] for k, box in enumerate(boxes)})
    assert (len(tracks) == 1) == are_one


def test_the_nearest_goes_on():
    """A passer-by shows up in the frame without the person, who is back in the next."""
    tracks = link({0: [face(0, 0)], 1: [face(-19, 0)], 2: [face(8, 0)]})
    assert tracks == [{0: face(0, 0), 2: face(8, 0)}, {1: face(-19, 0)}]


def test_after_a_cut_the_face_is_the_one_there_is():
    shots = {k: [face(100, 100) if k < 7 else face(800, 100)] for k in range(16)}
    (person,) = people(shots)
    assert boxes_of(person, shots) == [faces[0].box for faces in shots.values()]
    closer = {k: [face(100, 100) if k % 2 else face(600, 300, side=90)] for k in range(16)}
    (person,) = people(closer)  # shots change, between a close-up and the whole room
    assert boxes_of(person, closer) == [faces[0].box for faces in closer.values()]


def test_across_a_cut_a_box_is_not_filled_in_halfway():
    shots = {k: [face(100, 100) if k < 7 else face(800, 100)] for k in range(16)}
    shots |= {6: [], 7: []}
    (person,) = people(shots)
    assert boxes_of(person, (5, 6, 7, 8)) == [face(x, 100).box for x in (100, 100, 800, 800)]


def test_a_frame_with_a_sure_face_of_nobody_is_not_filled():
    frames = {k: [face(0, 0, side=30)] for k in range(8)}
    frames[3] = [face(300, 0, side=12), face(400, 0, side=9), face(500, 0, side=40, score=0.9)]
    frames[5] = [face(500, 0, side=40, score=0.9)]
    (person,) = people(frames)
    assert place(person, 3) == (face(300, 0, side=12), False)
    assert place(person, 5) == (face(0, 0, side=30), True)


def test_a_frame_does_not_take_the_face_of_another_person():
    one, other = face(0, 0, side=30), face(300, 0, side=12)
    frames = {k: [one, other] if k < 6 else [other] for k in range(8)}
    first, second = people(frames)
    assert first == dict.fromkeys(range(6), one)
    assert second == dict.fromkeys(range(8), other)


def test_no_two_people_take_one_face():
    frames = {k: [face(0, 0, side=30), face(300, 0, side=20)] for k in range(8)}
    frames[4] = [face(600, 0, side=15)]
    first, second = people(frames)
    assert 4 in first
    assert 4 not in second


def test_people_are_found_in_crowds_without_delay():
    rng = np.random.default_rng(0)
    frames = {
        k: [face(x, y, side=s) for x, y, s in rng.uniform((0, 0, 8), (1900, 1000, 60), (30, 3))]
        for k in range(16)
    }
    begun = time.process_time()
    found = people(frames)
    assert time.process_time() - begun < 10
    assert len(found) == MAX_FACES
    for number, faces in frames.items():
        seen = [track[number] for track in found if number in track]
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(faces)
