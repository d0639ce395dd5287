"""The IPTC vocabulary of digital source types, and what names of tools and credits say.

https://cv.iptc.org/newscodes/digitalsourcetype/, the same in XMP (IPTC) and in C2PA, which adds
two of its own (https://c2pa.org/digitalsourcetype/). Retired codes are still in files.
"""

import re

# Code -> what it means here; the definition is IPTC's, shortened.
SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "ai_generated",  # made by a model derived from sampled content
    "compositeWithTrainedAlgorithmicMedia": "ai_edited",  # such as inpainting, outpainting
    "algorithmicMedia": "synthetic",  # by an algorithm alone, no training data
    "dataDrivenMedia": "synthetic",  # media represent data
    "virtualRecording": "synthetic",  # of a virtual event
    "softwareImage": "synthetic",  # retired: created by software
    "compositeSynthetic": "synthetic_part",  # mix of elements, at least one of them synthetic
    "composite": "composite",  # mix of several elements, any
    "compositeCapture": "composite",  # mix of several elements that are all captures
    "algorithmicallyEnhanced": "enhanced",  # by an algorithm that does not change what is shown
    "humanEdits": "edited",  # augmentation, correction or enhancement by humans
    "minorHumanEdits": "edited",  # retired
    "digitalCreation": "drawn",  # by a human with non-generative tools
    "digitalArt": "drawn",  # retired
    "digitalCapture": "camera",  # from a real-life source with a digital camera
    "computationalCapture": "camera",  # the same, several frames by computation
    "negativeFilm": "scan", "positiveFilm": "scan", "print": "scan",
    "screenCapture": "screen",
    "trainedAlgorithmicData": "ai_data",  # C2PA: any data made by such a model
    "empty": "no_pixels",  # C2PA: started from a blank
}  # fmt: skip
_BY_NAME = {code.lower(): code for code in SOURCE_TYPES}
_LAST = re.compile(r"[^/#:]*$")

MOST_LETTERS = 1000  # of a name
MOST_SAID = 10_000  # letters of a credit or note that are looked at

# Names of tools, as they sign; a name proves no more than any other word.
_NAMES = (
    r"midjourney|dall[-· ]?e|stable ?diffusion|sdxl|novelai|comfyui|invokeai|fooocus|draw things"
    r"|automatic1111|google ai|gpt-4o|gpt-image|chatgpt|openai|flux\.?1|ideogram|leonardo\.?ai"
    r"|runwayml|runway gen-?\d|adobe generative|generative (?:fill|ai)|bing image|seedream"
    r"|qwen-image|nano banana|faceapp|deepfacelab|facefusion"
    # Words, or names of other things too, by whom they are of.
    r"|adobe firefly|google (?:imagen|gemini)|microsoft copilot|xai grok|kling ai"
)
_WORDS = r"firefly|imagen|gemini|copilot|grok|kling|runway|reface|roop"
_VERSIONED = rf"(?:{_WORDS})[- ]?v?\d[\d.]*"
# Alone, or first and with a version, they are meant: "imagen" is a picture in Spanish.
_GENERATORS = re.compile(rf"\b(?:{_NAMES})\b|^(?:{_VERSIONED}\b|(?:{_WORDS})$)", re.IGNORECASE)
_EDITORS = re.compile(
    r"\b(photoshop|lightroom|gimp|paint\.net|paint shop|picasa|snapseed|affinity|pixelmator"
    r"|capture one|darktable|rawtherapee|imagemagick|graphicsmagick|picsart|vsco|canva|facetune"
    r"|meitu|beautyplus|photo ?scape|photopea|acdsee|irfanview|xnview|photo editor|coreldraw"
    r"|premiere|after effects|final cut|davinci|capcut|handbrake|quicktime pro|photo mechanic"
    r"|fotostation|aperture|iphoto|pixlr|inkscape|krita|adobe)\b",
    re.IGNORECASE,
)

# Statements, in English. A clause must be one from its start to its end, and nothing in its
# sentence may deny, allow, forbid or ask: "not made with AI", "may be used for AI-generated art".
_SENTENCES = re.compile(r"[.!]+(?:\s|$)|[;\n\u3002]")
_CLAUSES = re.compile(r"[,:|/()\[\]\u2022\u2013\u2014]|\s-+\s")
_DOUBTS = re.compile(
    r"\b(?:not?|non|never|none|neither|nor|without|free|cannot|can|could|may|might|must|shall|should"
    r"|would|if|whether|instead|rather|than|prohibit\w*|forbid\w*|bann?ed|disallow\w*|allow\w*|deny"
    r"|permi\w+|refuse\w*|reject\w*|detect\w*|polic\w+|licen[cs]\w+|human|terms|use|used|purposes?"
    r"|train|training|versus|vs|about|against|looks?|like|suspect\w*|possibl[ey]|maybe|perhaps"
    r"|allegedly|false(?:ly)?)\b|n['\u2019]t\b|-free\b",
    re.IGNORECASE,
)
_AI = (
    r"(?:[\w.\u00b7'-]+ ){0,3}?(?:(?-i:AI|ai|Ai(?!\s+[A-Z]))|artificial intelligence|(?:"
    + f"{_NAMES}|{_VERSIONED}"
    + r")(?: [\d.]+)?)(?:[- ](?:tools?|models?|systems?|generators?|software|technology|art|fill))?"
)
_THING = (
    r"(?:image|photo(?:graph)?|picture|video|clip|art(?:work)?|illustration|portrait|content|media"
    r"|file|work|face)s?"
)
_LEAD = (
    rf"(?:(?:this|these|the|an?|my) )?(?:{_THING} )?(?:(?:was|were|is|are|has been|have been) )?"
)
_HOW = r"(?:(?:fully|entirely|completely|wholly|100 ?%|digitally|partly|partially) )?"
_TAIL = r"(?: (?:by|with|using|from|in|on|and|for|via|of) .*)?$"
_BY = rf" (?:(?:entirely|fully) )?(?:with|by|using|in|via) (?:the help of )?{_AI}{_TAIL}"
_MADE = re.compile(
    rf"^{_LEAD}{_HOW}(?:(?:made|generated|created|produced|imagined|drawn|rendered){_BY}"
    rf"|AI[- ](?:generated|made|created)(?: {_THING})?{_TAIL})",
    re.IGNORECASE,
)
_EDITED = re.compile(
    rf"^{_LEAD}{_HOW}(?:(?:edited|enhanced|modified|altered|retouched){_BY}"
    rf"|AI[- ](?:edited|modified|altered)(?: {_THING})?{_TAIL}"
    rf"|(?:contains|includes) (?:an? |some )?AI[- ]generated {_THING}{_TAIL})",
    re.IGNORECASE,
)


def source_type(value: str) -> tuple[str, str]:
    """Return the code and the meaning of a source type, given as a code or as an address."""
    last = _LAST.search(value.strip().rstrip("/"))
    code = _BY_NAME.get((last[0] if last else "").lower())
    return (code, SOURCE_TYPES[code]) if code else (value, "source_type")


def of_software(name: str) -> str:
    """Return what the name of a tool means: "ai_tool", "editor" or "software"."""
    name = name[:MOST_LETTERS].replace("_", " ").strip()
    if _GENERATORS.search(name):
        return "ai_tool"
    return "editor" if _EDITORS.search(name) else "software"


def of_credit(text: str, otherwise: str = "credit") -> str:
    """Return what a credit or a note states: "ai_generated", "ai_edited" or `otherwise`.

    Only of what is said outright, in English; of what is denied, allowed or asked `otherwise`.
    """
    text = text[:MOST_SAID].replace("A.I.", "AI").replace("?", " if. ")
    found = {_stated(sentence) for sentence in _SENTENCES.split(text)}
    return next((means for means in ("ai_edited", "ai_generated") if means in found), otherwise)


def _stated(sentence: str) -> str:
    """Return what the first of a sentence's clauses that states something states; "" of none."""
    before = ""
    for clause in _CLAUSES.split(sentence):
        words = " ".join(clause.split())
        made = _MADE.match(words)
        if made or _EDITED.match(words):
            denied = _DOUBTS.search(f"{before} {words}")
            return "" if denied else "ai_generated" if made else "ai_edited"
        before += f" {words}"
    return ""
