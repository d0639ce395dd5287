"""What the columns of tables are called."""

from src.data.words import normalise

KNOWN = {
    "id": (
        "item_id", "id", "filename", "file_name", "file", "image_id", "image", "image_name", "img",
        "image_path", "path", "filepath", "file_path", "video", "video_name", "name", "uuid",
        "index"),
    "label": ("label", "labels", "target", "class", "is_fake", "fake", "label_str", "y"),
    "group": (
        "group", "group_id", "original", "original_id", "original_video", "source_video", "video",
        "video_id", "subject", "subject_id", "identity", "person", "person_id", "user", "user_id",
        "client", "client_id", "actor", "actor_id", "participant", "participant_id"),
    "domain": ("domain", "dataset", "generator", "attack", "attack_type"),
    "fold": ("fold", "kfold", "fold_id"),
    # Where every value is the word of a split.
    "split": ("split", "set", "subset", "partition", "phase"),
}  # fmt: skip
# Of labels, in these 1 means real.
MEANS_REAL = frozenset({"is_real", "real", "is_live", "live", "genuine", "bonafide"})
# Of groups, these name another item: the real one that a fake was made from.
ORIGINAL_COLUMNS = frozenset({"original", "original_id", "original_video", "source_video"})
# Of these some are values too: a header of `real` or `video` alone proves nothing.
_HEADERS = {name for what in KNOWN if what != "split" for name in KNOWN[what]} - {"fake", "video"}


def is_header(cells: list[str]) -> bool:
    """Tell whether a row holds the name of a column that is known."""
    return any(normalise(cell) in _HEADERS for cell in cells)
