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


def _add_looking(parser: Parser, most_seconds: float) -> None:
    """Add what is looked for in a file."""
    add = parser.add_argument
    text = "see each file as N levels deliver it too (default 2; 0: not)"
    add("--deliveries", type=int, default=2, metavar="N", help=text)
    text = "frames on a clip's timeline (default: one a second, at most 32; 0: the recipe's own)"
    add("--frames", type=int, metavar="N", help=text)
    add("--no-maps", action="store_false", dest="maps", help="not where a net looks")
    text = f"refuse longer clips (default {most_seconds:.0f}): each is decoded as a whole"
    add("--most-seconds", type=float, default=most_seconds, metavar="S", help=text)


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
    _add_looking(parser, 1800.0)
    text = "say too whether a file is far from what was trained on (another net's pass)"
    add("--far", action="store_true", help=text)
    add("--html", type=Path, metavar="FILE", help="write a page with all of it")
    add("--json", type=Path, metavar="FILE", help="write all of it for other programs")
    add("--language", default="en", metavar="LANG", help="of the page: en or ko")
    add_device(parser)


def _add_server(parser: Parser) -> None:
    """Add where a page is served, and for whom."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where it listens")
    add("--port", type=int, default=8000, metavar="N", help="0: any that is free")
    text = "what others must know (default: one is made where they can reach it)"
    add("--token", metavar="TEXT", help=text)
    text = "a host name by which it is reached, behind a proxy; may be given again"
    add("--name", action="append", default=[], dest="names", metavar="HOST", help=text)
    text = "of the page, where a browser asks for none that there is: en or ko"
    add("--language", default="en", metavar="LANG", help=text)


@command("""Serve a page that pictures, clips and folders are dropped on, with the evidence of each.

  python -m src serve                               on this machine alone: http://127.0.0.1:8000/
  python -m src serve --recipe tuned --port 9000    another recipe, another port
  python -m src serve --host 0.0.0.0                for others too, who need the token it prints
  curl -F file=@photo.jpg http://127.0.0.1:8000/api/look     for programs, as `look --json`

Uploads lie in a private folder until they are answered, and nothing of them is kept on disk; the
page loads nothing from elsewhere. Limits, the API, proxies: docs/serve.md.""")
def _serve(parser: Parser) -> None:
    add = parser.add_argument
    add_recipe(parser)
    _add_looking(parser, 600.0)
    _add_server(parser)
    add("--most-mb", type=float, default=200.0, metavar="MB", help="of a file")
    add("--most-pixels", type=float, default=100e6, metavar="N", help="of a picture, or a frame")
    text = "files that are looked at together, a process with the whole recipe each (default 1)"
    add("--jobs", type=int, default=1, metavar="N", help=text)
    add("--queue", type=int, default=16, metavar="N", help="files that may wait (default 16)")
    text = "seconds that a file may take (default 300)"
    add("--timeout", type=float, default=300.0, metavar="S", help=text)
    text = "answers that the page still shows, in memory alone (default 50; 0: none)"
    add("--history", type=int, default=50, metavar="N", help=text)
    add_device(parser)


@command("""Watch a camera, a stream or a film: a rolling verdict of each person who is followed.

  python -m src watch 0                             the first camera
  python -m src watch rtsp://user:pw@host/stream    a stream (rtsp, rtsps, http, https)
  python -m src watch clip.mp4 --json               a file, as fast as it goes, as JSON lines
  python -m src watch 0 --serve                     on a page: http://127.0.0.1:8000/

By a recipe of tune.py, on the frames of the last --window seconds: real, fake, or unsure where the
recipe's risk says so. Latency and dropped frames are told with every line. See docs/watch.md.""")
def _watch(parser: Parser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", help="number of a camera, an address, a file")
    add_recipe(parser)
    add("--fps", type=float, default=5.0, metavar="N",
        help="frames of each second that are looked at (default 5)")  # fmt: skip
    add("--window", type=float, default=5.0, metavar="S",
        help="seconds that a verdict rests on (default 5)")  # fmt: skip
    add("--faces", type=int, default=4, metavar="K",
        help="people judged at a time, the largest (default 4)")  # fmt: skip
    text = "play a file by the clock, and let frames go that come too fast"
    add("--realtime", action="store_true", help=text)
    add("--stall", type=float, default=5.0, metavar="S",
        help="say after so many seconds that no frame comes (default 5)")  # fmt: skip
    text = "ask so often in a row for a stream or camera that is lost (default 5)"
    add("--tries", type=int, default=5, metavar="N", help=text)
    text = "watch https:// and rtsps:// whoever's certificate they show"
    add("--insecure", action="store_true", help=text)
    add("--seconds", type=float, metavar="S", help="end after so many seconds")
    add("--json", action="store_true", help="print a line of JSON a frame, for other programs")
    add("--output", type=Path, metavar="FILE", help="write these lines to FILE.jsonl")
    text = "show it on a page: the newest frame, a verdict of each person (extra `web`)"
    add("--serve", action="store_true", help=text)
    _add_server(parser)
    add_device(parser)
