"""Evidence for a terminal."""

from src.evidence.evidence import FileEvidence, NetMap
from src.pages.environment import ENGLISH, plain, words

SHOWN = 100  # letters of what a file says of itself
WIDE = 40  # letters of a timeline's bars


def evidence_text(found: FileEvidence) -> str:
    """Return what was found of a file as lines of text, safe to print."""
    return plain("\n".join(_lines(found)))


def _lines(found: FileEvidence) -> list[str]:
    lines = [*_verdict_lines(found), *_people_lines(found), *_timeline_lines(found)]
    lines += [f"  map: {_map_text(one)}" for one in found.maps]
    if found.no_maps:
        lines.append(f"  map: none, {found.no_maps}")
    return [*lines, *_file_lines(found)]


def _verdict_lines(found: FileEvidence) -> list[str]:
    file, verdict, say = found.file, found.verdict, words(ENGLISH)
    size = f"{file.width} x {file.height}, " if file.width else ""
    length = f"{file.seconds:.1f} s, " if file.seconds else ""
    lines = [f"{file.name} ({size}{length}{file.bytes:,} bytes)"]
    reasons = [say(f"look.reason_{code.replace(' ', '_')}") for code in verdict.reasons]
    if verdict.prob is None:
        return [*lines, f"  not readable: {'; '.join(verdict.details.values()) or reasons[0]}"]
    leans = f", leans to {verdict.leans}" if verdict.said == "unsure" else ""
    lines.append(
        f"  {verdict.said.upper()}{leans}: P(fake) {verdict.prob:.4f}, fake from "
        f"{verdict.threshold:.4f} (recipe {verdict.recipe} of {verdict.dataset})"
    )
    if verdict.chance is not None:
        lines.append(
            f"  calibrated: {verdict.chance:.1%} fake of out-of-fold rows with such an answer (off "
            f"by {verdict.chance_error:.3f}; {verdict.chance_share:.0%} of those rows are fake)"
        )
    for code, reason in zip(verdict.reasons, reasons, strict=True):
        more = verdict.details.get(code)
        lines.append(f"  unsure: {reason}{f' ({more})' if more else ''}")
    if found.stability is not None:
        levels = ", ".join(
            f"{one.level} {one.prob:.4f}{' FLIPS' if one.flips else ''}" for one in found.stability
        )
        lines.append(f"  delivered otherwise: {levels}")
    return lines


def _people_lines(found: FileEvidence) -> list[str]:
    say, lines = words(ENGLISH), []
    for person in found.people:
        times = "" if person.start is None else f", {person.start:.1f} to {person.end:.1f} s"
        lines.append(f"  person {person.number + 1}: {person.said}, {person.prob:.4f}{times}")
    if found.people and found.crowd > len(found.people):
        more = {"count": found.crowd, "judged": len(found.people)}
        lines.append(f"  people: {say('look.crowd', **more)}")
    if found.no_people:
        lines.append(f"  people: {say(f'look.people_{found.no_people}')}")
    return lines


def _timeline_lines(found: FileEvidence) -> list[str]:
    if found.timeline is None:
        return []
    deciding, lines = set(found.timeline.deciding), []
    for place, moment in enumerate(found.timeline.moments):
        bar = "#" * round(WIDE * moment.prob)
        mark = " *" if place in deciding else ""
        lines.append(f"  {moment.second:8.2f} s {moment.prob:.4f} {bar:<{WIDE}}{mark}".rstrip())
    without = "flips" if found.timeline.flips_without else "holds"
    return [*lines, f"  * frames that decide: without them the verdict {without}"]


def _file_lines(found: FileEvidence) -> list[str]:
    if found.provenance is None:
        return []
    lines = []
    for one in found.provenance["findings"]:
        value = " ".join(one["value"].split())
        value = value if len(value) <= SHOWN else f"{value[: SHOWN - 4]} ..."
        lines.append(
            f"  the file says ({one['strength']}): {one['source']} {one['field']}: {value}"
        )
    return lines or ["  the file says nothing of itself, which proves nothing"]


def _map_text(one: NetMap) -> str:
    check = (
        "" if one.lost is None
        else f": blurring its hottest fifth costs {one.lost:.2f} logits, a random one "
        f"{one.random:.2f} (beats {one.beats:.0%} of them)"
    )  # fmt: skip
    state = f"withheld ({one.withheld})" if one.withheld else "shown"
    return f"{one.kind} of {one.model} fold {one.fold} {state}{check}"
