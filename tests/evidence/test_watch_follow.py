"""People followed frame by frame, on boxes by hand: who is who follows from how they were moved."""

import random

import pytest

from src.evidence.live.follow import HOLD, Follower
from src.faces.crop import Face

STEP = 0.2
SURE = 0.7


def box(x, y, side=40.0, score=0.9):
    return Face((x, y, x + side, y + side), score)


def walk(scenes, step=STEP, follower=None, start=0.0):
    """Follow the faces of scenes (a list of faces each); returns the numbers, scene by scene."""
    follower = follower or Follower(SURE, step)
    return [
        [one.number for one in follower.follow(faces, start + k * step)]
        for k, faces in enumerate(scenes)
    ]


def test_two_who_pass_each_other_keep_their_numbers():
    """At the crossing both boxes are equal: only where they were going tells them apart."""
    scenes = [[box(10 * k, 100), box(200 - 10 * k, 100)] for k in range(21)]
    assert scenes[10][0] == scenes[10][1]
    assert walk(scenes) == [[1, 2]] * 21
    shuffled = [scene[:: -1 if k % 2 else 1] for k, scene in enumerate(scenes)]
    # Where both are equal, any order is right.
    assert [sorted(one) for one in walk(shuffled)] == [[1, 2]] * 21
    assert walk(shuffled)[-1] == [1, 2]


@pytest.mark.parametrize("missed", [1, 5, 15])
def test_who_is_missed_for_some_frames_comes_back_as_the_same(missed):
    scenes = [[box(100, 100)]] * 3 + [[]] * missed + [[box(110, 100)]] * 2
    assert walk(scenes)[-1] == [1]


def test_who_is_away_too_long_comes_back_as_somebody_new_and_no_number_is_given_twice():
    away = [[]] * (int(HOLD / STEP) + 2)
    numbers = walk([[box(100, 100)], *away, [box(100, 100)], *away, [box(100, 100)]])
    assert [one for one in numbers if one] == [[1], [2], [3]]


def test_a_face_that_is_far_off_or_of_another_size_is_somebody_else():
    assert walk([[box(0, 0)], [box(600, 0)]]) == [[1], [2]]
    assert walk([[box(0, 0, 40)], [box(60, 0, 100)]]) == [[1], [2]]


def test_twenty_people_who_stay_and_come_in_any_order():
    draws = random.Random(0)
    places = [(60.0 * (k % 5), 60.0 * (k // 5)) for k in range(20)]
    follower, numbers = Follower(SURE, STEP), {}
    for step in range(30):
        who = list(range(20))
        draws.shuffle(who)
        who = who[: 20 - step % 4]
        faces = [box(places[k][0] + draws.uniform(-4, 4), places[k][1] + draws.uniform(-4, 4))
                 for k in who]  # fmt: skip
        for k, one in zip(who, follower.follow(faces, step * STEP), strict=True):
            assert numbers.setdefault(k, one.number) == one.number
    assert sorted(numbers.values()) == [*range(1, 21)]
    assert len(follower.known) == 20


def test_nobody_has_a_number_before_a_face_was_sure():
    faces = [[box(0, 0, score=0.6)], [box(1, 0, score=0.6)], [box(2, 0, score=0.8)],
             [box(3, 0, score=0.6)]]  # fmt: skip
    assert walk(faces) == [[0], [0], [1], [1]]


def test_people_keep_their_numbers_where_pictures_become_half_as_large():
    follower = Follower(SURE, STEP)
    walk([[box(100, 100, 80), box(300, 100, 80)]], follower=follower)
    follower.resize(0.5, 0.5)
    assert walk([[box(150, 50, 40), box(50, 50, 40)]], follower=follower, start=0.2) == [[2, 1]]


def test_at_one_frame_in_five_seconds_people_are_still_followed():
    assert walk([[box(0, 0)]] * 4, step=5.0) == [[1]] * 4
