"""The flags of the commands that look at single files and streams by a recipe."""

from pathlib import Path

from src.cli.flags import Parser, add_data, add_device, command


def add_recipe(parser: Parser) -> None:
    """Add which recipe looks, and how sure it must be."""
    add = parser.add_argument
    add_data(parser, scheme=False)
    add("--recipe", metavar="NAME", help="default: tuned, or the only one")
    text = "share of sure verdicts that may be wrong (default 0.05, where that can be met; 0: none)"
    add("--risk", type=float, metavar="R", help=text)


@command("""Look at single files: a verdict with its evidence, each part marked with what it proves.

  python -m src look photo.jpg clip.mp4             in the terminal
  python -m src look photo.jpg --html page.html     as one page that loads nothing
  python -m src look folder/ --json found.json      for other programs

By a recipe of tune.py: P(fake) and the verdict, unsure where the recipe's risk says so; whether it
would survive another delivery; where a net looks, if that stands its check; each person; a clip's
frames; and, apart from the score, what the file says of itself. What each proves: docs/look.md.""")
def _look(parser: Parser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="pictures, clips, folders of them")
    add_recipe(parser)
    text = "see each file as N levels deliver it too (default 2; 0: not)"
    add("--deliveries", type=int, default=2, metavar="N", help=text)
    text = "frames on a clip's timeline (default: one a second, at most 32; 0: the recipe's own)"
    add("--frames", type=int, metavar="N", help=text)
    text = "refuse longer clips (default 1800): each is read through four times"
    add("--most-seconds", type=float, default=1800.0, metavar="S", help=text)
    add("--no-maps", action="store_false", dest="maps", help="not where a net looks")
    text = "say too whether a file is far from what was trained on (another net's pass)"
    add("--far", action="store_true", help=text)
    add("--html", type=Path, metavar="FILE", help="write a page with all of it")
    add("--json", type=Path, metavar="FILE", help="write all of it for other programs")
    add("--language", default="en", metavar="LANG", help="of the page: en or ko")
    add_device(parser)
