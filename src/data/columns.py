"""What the columns of tables are called."""

from src.data.words import normalise

ID_COLUMNS = (
    "item_id", "id", "filename", "file_name", "file", "image_id", "image", "image_name", "img",
    "image_path", "path", "filepath", "file_path", "video", "video_name", "name", "uuid", "index",
)  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "target", "class", "is_fake", "fake", "label_str", "y")
# Of these, 1 means real.
MEANS_REAL = frozenset({"is_real", "real", "is_live", "live", "genuine", "bonafide"})
GROUP_COLUMNS = (
    "group", "group_id", "original", "original_id", "original_video", "source_video", "video",
    "video_id", "subject", "subject_id", "identity", "person", "person_id", "user", "user_id",
    "client", "client_id", "actor", "actor_id", "participant", "participant_id",
)  # fmt: skip
# Their values name another item: the real one that a fake was made from.
ORIGINAL_COLUMNS = frozenset({"original", "original_id", "original_video", "source_video"})
DOMAIN_COLUMNS = ("domain", "dataset", "generator", "attack", "attack_type")
FOLD_COLUMNS = ("fold", "kfold", "fold_id")
# Where every value is the word of a split.
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase")
_KNOWN = {*ID_COLUMNS, *LABEL_COLUMNS, *GROUP_COLUMNS, *DOMAIN_COLUMNS, *FOLD_COLUMNS}
# Of these some are values too: a header of `real` or `video` alone proves nothing.
_HEADERS = _KNOWN - {"fake", "video"}


def is_header(cells: list[str]) -> bool:
    """Tell whether a row holds the name of a column that is known."""
    return any(normalise(cell) in _HEADERS for cell in cells)
