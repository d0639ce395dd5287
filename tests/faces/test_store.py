from src.faces.crop import Face
from src.faces.store import Found, join_parts, read_boxes, write_part

POINTS = tuple((k / 3, k / 7) for k in range(5))
ONE = Found(2**63 + 5, "a.jpg", {0: [Face((0.1, -2.0, 3.3, 4.0), 0.9, POINTS)]})
NONE = Found(2, "b.jpg", {0: []})
CLIP = Found(
    3,
    "c.mp4",
    {4: [Face((1, 2, 3, 4), 0.8), Face((5, 6, 7, 8), 1.0)], 9: [], 14: [ONE.frames[0][0]]},
)


def test_boxes_come_back_exactly(tmp_path):
    write_part(tmp_path, [ONE, NONE, CLIP])
    assert read_boxes(tmp_path) == {item.mark: item.frames for item in (ONE, NONE, CLIP)}


def test_parts_add_up_and_are_joined(tmp_path):
    write_part(tmp_path, [ONE])
    write_part(tmp_path, [NONE, CLIP])
    newer = ONE._replace(frames={0: []})
    write_part(tmp_path, [newer])
    before = read_boxes(tmp_path)
    join_parts(tmp_path)
    assert [file.name for file in tmp_path.glob("*.parquet")] == ["boxes.parquet"]
    assert read_boxes(tmp_path) == before
    assert before[ONE.mark] == {0: []}
    write_part(tmp_path, [ONE])
    assert read_boxes(tmp_path)[ONE.mark] == ONE.frames


def test_a_damaged_part_counts_as_none(tmp_path):
    write_part(tmp_path, [ONE])
    write_part(tmp_path, [NONE])
    (tmp_path / "000001.parquet").write_bytes(b"PAR1 no more")
    assert read_boxes(tmp_path) == {ONE.mark: ONE.frames}
    join_parts(tmp_path)
    assert read_boxes(tmp_path) == {ONE.mark: ONE.frames}


def test_nothing_kept_is_nothing_found(tmp_path):
    assert read_boxes(tmp_path / "nowhere") == {}
