"""What a request is refused for: a status of HTTP and words in the language of who asked."""

from src.pages.environment import Say


class RequestRefusedError(Exception):
    """A request that is answered with a status and words.

    Args:
        status: of HTTP, 400 to 599.
        key: of the words, in `src/pages/words/web.*.yaml`.
        again: seconds after which it is worth another try; None: not as it is.
        **values: what the words name.
    """

    def __init__(self, status: int, key: str, again: int | None = None, **values: object) -> None:
        super().__init__(f"{status} {key} {values}")
        self.status, self.key, self.again, self.values = status, key, again, values

    def words(self, say: Say) -> str:
        """Say it."""
        return say(f"web.{self.key}", **self.values)


def fault(error: BaseException) -> RequestRefusedError:
    """Return what an error of this program is answered with; the log has the rest."""
    return RequestRefusedError(500, "fault", what=type(error).__name__)
