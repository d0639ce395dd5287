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
    return [*lines, *_map_lines(found), *_file_lines(found)]


def _verdict_lines(found: FileEvidence) -> list[str]:
    file, verdict, say = found.file, found.verdict, words(ENGLISH)
    size = f"{file.width} x {file.height}, " if file.width else ""
    length = f"{file.seconds:.1f} s, " if file.seconds else ""
    lines = [f"{file.name} ({size}{length}{file.bytes:,} bytes)"]
    reasons = [say(f"look.reason_{code}") for code in verdict.reasons]
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
    lines += _risk_lines(found)
    lines.append(_proof("verdict"))
    if found.stability is not None:
        levels = ", ".join(
            f"{one.level} {one.prob:.4f}{' FLIPS' if one.flips else ''}" for one in found.stability
        )
        lines += [f"  delivered otherwise: {levels}", _proof("stability")]
    return lines


def _proof(part: str) -> str:
    return f"    proves: {words(ENGLISH)(f'look.proves_{part}')}"


def _risk_lines(found: FileEvidence) -> list[str]:
    risk, say = found.verdict.risk, words(ENGLISH)
    if risk is None:
        why = found.verdict.details.get("no_risk")
        said = say(f"look.no_risk_{found.verdict.no_risk}")
        return [f"  risk: {said}{f' ({why})' if why else ''}"]
    low, high = risk["real_up_to"], risk["fake_from"]
    real = say("look.never_real") if low is None else say("look.sure_real", low=f"{low:.4f}")
    fake = say("look.never_fake") if high is None else say("look.sure_fake", high=f"{high:.4f}")
    values = {"risk": f"{risk['risk']:.0%}", "confidence": f"{risk['confidence']:.0%}"}
    lines = [f"  risk: {say('look.risk', real=real, fake=fake, **values)}"]
    lines.append(
        f"    rests on: {say('look.risk_assumes', share=format(risk['share_fake'], '.0%'))}"
    )
    return [*lines, *(f"    WARNING {doubt}" for doubt in risk["doubts"])]


def _people_lines(found: FileEvidence) -> list[str]:
    say, lines = words(ENGLISH), []
    for person in found.people:
        times = "" if person.start is None else f", {person.start:.1f} to {person.end:.1f} s"
        lines.append(f"  person {person.number}: {person.said}, {person.prob:.4f}{times}")
    if found.people and found.crowd > len(found.people):
        more = {"count": found.crowd, "judged": len(found.people)}
        lines.append(f"  people: {say('look.crowd', **more)}")
    if found.no_people:
        lines.append(f"  people: {say(f'look.people_{found.no_people}')}")
    if len(found.people) > 1:
        rests = "by_first" if found.by_first else "by_everyone"
        lines.append(f"  people: {say(f'look.{rests}')}")
    return [*lines, _proof("people")] if found.people else lines


def _timeline_lines(found: FileEvidence) -> list[str]:
    if found.timeline is None:
        return []
    deciding, lines = set(found.timeline.deciding), []
    for place, moment in enumerate(found.timeline.moments):
        bar = "#" * round(WIDE * moment.prob)
        mark = " *" if place in deciding else ""
        lines.append(f"  {moment.second:8.2f} s {moment.prob:.4f} {bar:<{WIDE}}{mark}".rstrip())
    without = "flips" if found.timeline.flips_without else "holds"
    return [
        *lines,
        f"  * frames that decide: without them the verdict {without}",
        _proof("timeline"),
    ]


def _map_lines(found: FileEvidence) -> list[str]:
    lines = [f"  map: {_map_text(one)}" for one in found.maps]
    if found.no_maps:
        lines.append(f"  map: {words(ENGLISH)(f'look.map_none_{found.no_maps}')}")
    lines += [f"  map: no {kind}: {why}" for kind, why in found.absent_maps.items()]
    return [*lines, _proof("map")] if found.maps else lines


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
    say = words(ENGLISH)
    strengths = dict.fromkeys(one["strength"] for one in found.provenance["findings"])
    lines += [f"    proves: {say(f'provenance.proves_{strength}')}" for strength in strengths]
    return [*lines, f"  {say('provenance.absence')}"]


def _map_text(one: NetMap) -> str:
    say = words(ENGLISH)
    said = f"{one.kind} of {one.model} fold {one.fold}"
    said += f" withheld: {one.why(say)}" if one.withheld else " shown"
    if one.lost is None or one.random is None or one.beats is None:
        return said
    values = {"lost": f"{-one.lost:+.2f}", "random": f"{-one.random:+.2f}"}
    return f"{said}. {say('look.map_check', beats=f'{one.beats:.0%}', **values)}"
