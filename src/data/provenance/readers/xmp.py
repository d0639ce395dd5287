"""XMP: what tools write beside the pixels, with IPTC's digital source type and AI properties."""

from collections.abc import Callable, Iterator

from src.data.provenance.finding import STATED, Finding, NotReadError, finding
from src.data.provenance.generators import of_label, of_text
from src.data.provenance.opened import READERS, OpenedFile
from src.data.provenance.source_types import of_credit, of_software, source_type
from src.data.provenance.xmp_packet import Property, properties_of

SOURCE, IPTC = "xmp", "iptc"
_Reading = tuple[str, Callable[[str], tuple[str, str]]]  # source, value -> what is shown, meaning
_TEXTS = (
    "description",
    "usercomment",
    "title",
    "parameters",
    "aigc",
)  # where generators write, too


def _all(names: str, source: str, read: Callable[[str], tuple[str, str]]) -> dict[str, _Reading]:
    return dict.fromkeys(names.split(), (source, read))


# What a property says by its name in small letters, whatever its namespace and its place.
_READINGS = (
    _all("digitalsourcetype digitalsourcefiletype", IPTC, source_type)
    | _all(
        "creatortool softwareagent producer software aisystemused creatorsoftware", SOURCE,
        lambda value: (value, of_software(value)),
    )
    | _all("aisystemversionused", IPTC, lambda value: (value, "software"))
    | _all("aipromptinformation", IPTC, lambda value: (value, "prompt"))
    | _all(
        "credit source instructions captionwriter rights headline", IPTC,
        lambda value: (value, of_credit(value)),
    )
    | _all(
        "createdate datecreated modifydate datetimeoriginal", SOURCE,
        lambda value: (value, "time"),
    )
    | _all("make model lens lensmodel", SOURCE, lambda value: (value, "camera"))
    | _all(
        "gpslatitude gpslongitude", SOURCE, lambda _: ("a place is given (not shown)", "place")
    )
    | _all("datamining", IPTC, lambda value: (value.rsplit("/", 1)[-1], "mining"))
)  # fmt: skip


@READERS.register(SOURCE)
def read_xmp(file: OpenedFile) -> Iterator[Finding]:
    """Yield what the XMP packets of a picture or clip say.

    Raises:
        NotReadError: a broken file, or XML that is broken or refused; what came before is kept.
    """
    problem = file.notes.problems.get(SOURCE, "")
    for packet in file.notes.xmp:
        found, wrong = properties_of(packet)
        problem = problem or wrong
        for one in found:
            yield from _of_property(one)
    if problem:
        raise NotReadError(problem)


def _of_property(one: Property) -> Iterator[Finding]:
    name, value = one.name, one.value
    key = name.lower()
    if key in _READINGS:
        source, read = _READINGS[key]
        shown, means = read(value)
        yield finding(source, name, shown, means, STATED)
    elif key in _TEXTS:
        told = list(of_text(SOURCE, name, value))
        yield from told or [finding(SOURCE, name, value, of_credit(value, "note"), STATED)]
    elif key == "provenance" and value.startswith("http"):
        yield finding(SOURCE, name, value, "remote_manifest", STATED)
    elif key == "label" and "AIGC" in one.path:  # told as a structure, not as JSON
        yield of_label(SOURCE, "AIGC", {"Label": value})
    elif key == "action" and "History" in one.path:
        yield finding(SOURCE, "History", value, "action", STATED)
