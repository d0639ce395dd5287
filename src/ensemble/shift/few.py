"""Which levels are looked at where only a few can be afforded: of every test item, at each look."""

from src.errors import UserError

# What messengers and sites do most: stored again, made smaller, softened, cut at the edges. The
# first ones are unlike each other and cheap; those after them are stronger or rarer.
IN_TURN = (
    "jpeg70", "resize0.5", "blur1", "crop0.8", "jpeg50", "jitter0.2", "noise0.02", "resize0.25",
)  # fmt: skip


def first(count: int) -> tuple[str, ...]:
    """Return the levels to look at where `count` can be afforded.

    Raises:
        UserError: fewer than one, or more than there are.
    """
    if not 1 <= count <= len(IN_TURN):
        raise UserError(f"{count} deliveries: want 1 to {len(IN_TURN)} ({' '.join(IN_TURN)})")
    return IN_TURN[:count]


FOUR = first(4)
