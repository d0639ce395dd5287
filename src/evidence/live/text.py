"""A live source for a terminal: a line of now, and the summary at the end."""

from src.evidence.live.state import NO_FACE, Life, LiveState, Rolling, Summary
from src.pages.environment import plain

ENDS = {
    "end": "the source ended",
    "lost": "the source was lost",
    "stopped": "stopped",
    "time": "the time is over",
}
_MOST = 4  # people on a line


def state_line(state: LiveState) -> str:
    """Return what is said now as one line, safe to print."""
    faces = [face for face in state.faces if face.verdict is not None]
    said = [f"#{one.number} {_verdict(one.verdict)}{'' if one.seen else ' (out of sight)'}"
            for one in faces[:_MOST]]  # fmt: skip
    if len(state.faces) > len(said):
        said.append(f"{len(state.faces) - len(said)} more")
    if state.picture is not None:
        said = [f"picture {_verdict(state.picture)}"]
    what = ", ".join(said) or ("no face" if state.no_verdict == NO_FACE else "no verdict")
    line = f"{clock(state.second)}  {what} | latency {1000 * state.latency:.0f} ms, "
    line += f"{state.looked_at} of {state.seen} frames looked at, {state.dropped} dropped"
    line += f", {state.damaged} damaged" if state.damaged else ""
    return plain(line)


def summary_text(found: Summary) -> str:
    """Return the summary as lines, safe to print."""
    rate = found.looked_at / found.seconds if found.seconds else 0.0
    lines = [
        f"{found.source}: {ENDS.get(found.ended, found.ended)} after {found.seconds:.1f} s "
        f"({clock(found.covered)} of it covered)",
        f"  frames: {found.seen} came, {found.looked_at} looked at ({rate:.1f} a second), "
        f"{found.dropped} dropped, {found.damaged} damaged"
        + (f"; came back {found.lost} times" if found.lost else ""),
    ]
    if found.latency:
        one = {name: f"{1000 * value:.0f}" for name, value in found.latency.items()}
        lines.append(f"  latency: median {one['median']} ms, p95 {one['p95']}, most {one['most']}")
    if found.looked_at:
        each = ", ".join(f"{step} {1000 * value / found.looked_at:.1f}"
                         for step, value in found.took.items())  # fmt: skip
        lines.append(f"  time a frame looked at, ms: {each}")
    if found.picture is not None:
        lines.append(f"  picture: {_life(found.picture)}")
    lines += [f"  #{life.number}: {_life(life)}" for life in found.people]
    if found.unlisted:
        lines.append(f"  and {found.unlisted} people more, seen in fewer frames")
    if not found.people and found.picture is None:
        lines.append("  no face was followed" if found.looked_at else "  nothing was looked at")
    return plain("\n".join(lines))


def clock(second: float) -> str:
    """Return seconds as `1:02:03.4`, without hours where there are none."""
    minutes, seconds = divmod(second, 60)
    hours, minutes = divmod(int(minutes), 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes:02d}"
    return f"{start}:{seconds:04.1f}"


def _verdict(one: Rolling | None) -> str:
    if one is None:
        return "not judged"
    lean = f", leans to {one.leans}" if one.said == "unsure" else ""
    return f"{one.said.upper()} {one.prob:.3f}{lean} ({one.frames} frames)"


def _life(life: Life) -> str:
    words = ", ".join(f"{word} {seconds:.1f} s" for word, seconds in life.said.items() if seconds)
    last = f"last {life.final} {life.prob:.3f}" if life.prob is not None else "never judged"
    most = f", at most {life.most:.3f}" if life.most is not None else ""
    return (
        f"{clock(life.first)} to {clock(life.last)}, {life.frames} frames, {last}{most}"
        + (f"; {words}" if words else "")
    )  # fmt: skip
