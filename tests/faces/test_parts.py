import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from src.faces.crop import Face
from src.faces.parts import halved, look


@given(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.tuples(st.integers(-80, 600), st.integers(-80, 600), st.integers(1, 900)),
    st.sampled_from([96, 192]),
)
def test_a_part_is_shown_in_its_place_and_black_beyond_the_picture(size, part, side):
    x, y, reach = part
    picture = np.full((*size, 3), 200, np.uint8)
    shown = look(picture, (x, y, x + reach, y + reach), side)
    assert shown.pixels.shape == (side, side, 3)
    if x < size[1] and y < size[0] and x + reach > 0 and y + reach > 0:
        rows, columns = np.nonzero(shown.pixels[..., 0] > 100)
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        there = (max(x, 0), max(y, 0), min(x + reach, size[1]), min(y + reach, size[0]))
        back = shown.back(Face(tuple(map(float, seen)), 1.0)).box
        assert np.allclose(back, there, atol=2 + 2 * reach / side)


def test_a_large_picture_is_halved_before_it_is_shrunk_and_none_is_lost():
    picture = np.arange(5, dtype=np.uint8)[:, None, None].repeat(9, 1).repeat(3, 2)
    small, times = halved(picture, 2)
    assert times == 4
    assert small.shape == (1, 2, 3)
    assert halved(picture[:1], 2)[1] == 1
