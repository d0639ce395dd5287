import numpy as np
import pytest

from src.faces.boxes import Face, between, inside, iou
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
    tracks = link(frames)
    assert [[f.box[0] for f in track.values()] for track in tracks] == [[0, 1], [4, 4]]


def test_what_overlaps_too_little_begins_anew():
    assert len(link({0: [face(0, 0)], 1: [face(5.5, 0)]})) == 2  # IoU 4.5 / 15.5 = 0.29
    assert len(link({0: [face(0, 0)], 1: [face(5.0, 0)]})) == 1  # IoU 5 / 15 = 0.33


def test_the_largest_is_the_largest_over_all_frames():
    near, far = face(0, 0, side=30), face(60, 60, side=20)
    frames = {0: [near, far], 1: [far], 2: [far], 3: [far]}
    assert people(frames)[0] == {0: far, 1: far, 2: far, 3: far}  # 4 x 400 > 900


def test_a_doubtful_face_counts_only_where_no_face_is_sure():
    wall, true = face(0, 0, side=50, score=0.9), face(60, 0, score=0.99)
    assert people({0: [wall, true]}) == [{0: true}]
    assert people({0: [wall]}) == [{0: wall}]


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


def test_no_face_is_nobody():
    assert people({0: [], 1: []}) == []
    assert people({}) == []


def test_boxes_mostly_outside_of_the_picture_are_left_out():
    picture = np.zeros((20, 30, 3), np.uint8)
    kept = [face(-4, 0), face(25, 15)]
    assert inside([*kept, face(-6, 0), face(100, 100), face(26, 16)], picture) == kept[:1]
