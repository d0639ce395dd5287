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

# Names of tools, as they sign; a name proves no more than any other word.
_GENERATORS = re.compile(
    r"\b(midjourney|dall[-· ]?e|stable ?diffusion|sdxl|novelai|comfyui|invokeai|fooocus|draw things"
    r"|automatic1111|firefly|imagen|gemini|google ai|gpt-4o|gpt-image|chatgpt|openai|grok|flux\.?1"
    r"|ideogram|leonardo\.?ai|runway(?:ml)?|adobe generative|generative (?:fill|ai)|bing image"
    r"|copilot|kling|seedream|qwen-image|nano banana|faceapp|reface|deepfacelab|facefusion|roop)\b",
    re.IGNORECASE,
)
_EDITORS = re.compile(
    r"\b(photoshop|lightroom|gimp|paint\.net|paint shop|picasa|snapseed|affinity|pixelmator"
    r"|capture one|darktable|rawtherapee|imagemagick|graphicsmagick|picsart|vsco|canva|facetune"
    r"|meitu|beautyplus|photo ?scape|photopea|acdsee|irfanview|xnview|photo editor|coreldraw"
    r"|premiere|after effects|final cut|davinci|capcut|handbrake|quicktime pro|photo mechanic"
    r"|fotostation|aperture|iphoto|pixlr|inkscape|krita|adobe)\b",
    re.IGNORECASE,
)
_MADE = re.compile(
    r"\b(?:made|generated|created)\b.{0,20}\bAI\b|\bAI[- ]generated\b", re.IGNORECASE
)
_EDITED = re.compile(r"\b(?:edited|enhanced|modified)\b.{0,20}\bAI\b", re.IGNORECASE)


def source_type(value: str) -> tuple[str, str]:
    """Return the code and the meaning of a source type, given as a code or as an address."""
    last = _LAST.search(value.strip().rstrip("/"))
    code = _BY_NAME.get((last[0] if last else "").lower())
    return (code, SOURCE_TYPES[code]) if code else (value, "source_type")


def of_software(name: str) -> str:
    """Return what the name of a tool means: "ai_tool", "editor" or "software"."""
    if _GENERATORS.search(name):
        return "ai_tool"
    return "editor" if _EDITORS.search(name) else "software"


def of_credit(text: str, otherwise: str = "credit") -> str:
    """Return what a credit or a note says: "ai_generated", "ai_edited" or `otherwise`."""
    if _EDITED.search(text):
        return "ai_edited"
    return "ai_generated" if _MADE.search(text) else otherwise
