"""What generators of pictures write into texts: parameters, prompts, graphs of nodes.

The forms as their programs write them: AUTOMATIC1111's web UI (and Forge, and what copies it) as
lines, ComfyUI as graphs, InvokeAI, NovelAI, Fooocus, SwarmUI and Draw Things as JSON, Midjourney
with the id of its job. Besides, China's label of generated content (GB 45438-2025, appendix E, the
law there since September 2025): JSON under `AIGC` in XMP, EXIF, texts and tags. Only texts are
looked at; nothing in them is run, opened or fetched.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from src.data.provenance.finding import MOST_LETTERS, STATED, Finding, finding, listed

MOST_NODES = 5000
MOST_SEARCHED = 500_000  # letters of a text that is no JSON
MOST_PARTS = 500_000  # of JSON: each takes some hundred bytes
MOST_SHOWN = 12  # models, prompts
MOST_NAME = 200  # letters of a kind of node or its input that are looked at
_JOB = re.compile(r"\bJob ID: [0-9a-f]{8}-[0-9a-f-]{27}", re.IGNORECASE)
_STEPS = re.compile(r"^Steps: \d+,.*$", re.MULTILINE)
_SETTING = re.compile(r'([A-Za-z][\w .-]{0,40}): ("(?:[^"\\]|\\.){0,400}"|[^,]{0,200})(?:,|$)')
_SHOWN = ("Model", "Model hash", "Sampler", "Schedule type", "Steps", "CFG scale", "Seed", "Size",
          "Denoising strength", "Version", "User", "Generator")  # fmt: skip
_MODEL_KEY = re.compile(r"(?:ckpt|unet|lora|vae|model|clip|control_net)_?name\d*$")
_JSON = re.compile(r"\s*[{[]")
_WEIGHTS = re.compile(r"\.(?:safetensors|ckpt|gguf|sft|pth?|bin)$", re.IGNORECASE)
# Names, in JSON of any of them, of what made a picture.
_KEYS = (
    "model", "model_name", "base_model", "model_weights", "base_model_name", "sampler",
    "sampler_name", "scheduler", "steps", "seed", "cfg_scale", "cfg", "scale", "guidance_scale",
    "strength", "generation_mode", "type", "app_version", "version", "fooocus_v2_expansion",
    "swarm_version",
)  # fmt: skip
_PROMPTS = ("prompt", "positive_prompt", "uc", "negative_prompt", "full_prompt", "c")
_TEXT_NODES = re.compile("encode|prompt", re.IGNORECASE)
_TELLING = frozenset(("sampler", "sampler_name", "steps", "seed", "cfg_scale", "cfg", "scheduler"))
# Keys of texts that one program alone uses.
_PROGRAMS = {
    "invokeai_metadata": "InvokeAI", "invokeai_graph": "InvokeAI", "invokeai_workflow": "InvokeAI",
    "sd-metadata": "InvokeAI", "dream": "InvokeAI", "fooocus_scheme": "Fooocus",
    "use_stable_diffusion_model": "Easy Diffusion",
}  # fmt: skip
_LABEL = "aigc"
# 1 it is, 2 it may be, 3 it is suspected to be.
_LABELS = {"1": "ai_generated", "2": "ai_suspected", "3": "ai_suspected"}
_LABEL_KEYS = ("Label", "ContentProducer", "ProduceID", "ContentPropagator", "PropagateID")
_AI_PROMPTS = ("prompt", "negative_prompt", "negative prompt")


def of_text(source: str, key: str, text: str) -> Iterator[Finding]:
    """Yield what a generator's text says; nothing of a text that is none of theirs.

    Args:
        source: where the text stands, for the findings.
        key: its name there.
        text: the text, as far as it was read.
    """
    data = _parsed(text)
    text, name = text[:MOST_SEARCHED], key.lower()
    if isinstance(data, dict):
        told = list(_of_json(source, key, data))
        if told:
            yield from told
            return
    if _STEPS.search(text):
        yield from _of_lines(source, key, text)
    elif _JOB.search(text):
        yield finding(source, key, "a job of Midjourney", "ai_generated", STATED)
        yield finding(source, key, text, "prompt", STATED)
    elif name in _PROGRAMS:
        yield finding(source, key, f"as {_PROGRAMS[name]} writes it", "ai_generated", STATED)
        if name == "dream":  # its command line begins with the prompt
            yield finding(source, key, text, "prompt", STATED)
    elif name in _AI_PROMPTS:
        yield finding(source, key, text, "prompt", STATED)


def _parsed(text: str) -> object:
    """Return what JSON holds; None of other texts, of what is cut off, too much or too deep."""
    if not _JSON.match(text) or sum(map(text.count, ",[{")) > MOST_PARTS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _of_lines(source: str, key: str, text: str) -> Iterator[Finding]:
    """Yield what lines as AUTOMATIC1111's say: prompt, negative prompt, then settings in one."""
    settings = _STEPS.search(text)
    line = settings[0][: 4 * MOST_LETTERS] if settings else ""
    found = {name: value.strip('"') for name, value in _SETTING.findall(line)}
    shown = listed({name: found[name] for name in _SHOWN if name in found})
    yield finding(source, key, shown or line, "ai_generated", STATED)
    yield finding(source, key, text, "prompt", STATED)


def of_label(source: str, key: str, label: Mapping[str, Any]) -> Finding:
    """Return what a label of GB 45438-2025 says, by its own names."""
    means = _LABELS.get(str(label.get("Label", "")).strip(), "ai_suspected")
    shown = listed({name: _said(label.get(name, "")) for name in _LABEL_KEYS})
    return finding(source, key, shown or "empty", means, STATED)


def _of_json(source: str, key: str, data: dict[str, Any]) -> Iterator[Finding]:
    inner = next((value for name, value in data.items() if name.lower() == _LABEL), None)
    label = inner if isinstance(inner, dict) else data if key.lower() == _LABEL else None
    if label is not None:
        yield of_label(source, key, label)
        return
    if isinstance(data.get("sui_image_params"), dict):
        data = {**data["sui_image_params"], **_plain(data.get("sui_extra_data"))}
    graph = {
        str(name): node for name, node in islice(data.items(), MOST_NODES)
        if isinstance(node, dict) and isinstance(node.get("class_type"), str)
    }  # fmt: skip
    if graph:
        yield from _of_graph(source, key, graph)
    elif isinstance(data.get("nodes"), list):
        yield from _of_workflow(source, key, data["nodes"])
    else:
        yield from _of_settings(source, key, data)


def _of_graph(source: str, key: str, graph: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield what a graph of ComfyUI's says that was run: models, samplers, texts."""
    models: dict[str, None] = {}
    samplers: dict[str, None] = {}
    prompts: dict[str, None] = {}
    kinds = [node["class_type"] for node in graph.values()]
    for node in graph.values():
        inputs = node.get("inputs")
        words = _TEXT_NODES.search(node["class_type"][:MOST_NAME])
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            if not isinstance(value, str) or not value.strip():
                continue
            if _MODEL_KEY.search(str(name)[-MOST_NAME:]):
                models[value] = None
            elif name in ("sampler_name", "scheduler"):
                samplers[value] = None
            elif words:
                prompts[value] = None
    yield from _made(source, key, kinds, models, samplers)
    if prompts:
        yield finding(source, key, "\n".join(islice(prompts, MOST_SHOWN)), "prompt", STATED)


def _of_workflow(source: str, key: str, nodes: list[Any]) -> Iterator[Finding]:
    """Yield what a graph says as it lies on ComfyUI's (or InvokeAI's) canvas."""
    kinds, models = [], {}
    for node in islice(nodes, MOST_NODES):
        if isinstance(node, dict):
            # InvokeAI keeps the kind one level down.
            kinds.append(_said(_plain(node.get("data")).get("type") or node.get("type") or "?"))
            values = node.get("widgets_values")
            for value in values if isinstance(values, list) else ():
                if isinstance(value, str) and _WEIGHTS.search(value):
                    models[value] = None
    yield from _made(source, key, kinds, models, {})


def _made(
    source: str, key: str, kinds: list[str], models: Iterable[str], samplers: Iterable[str]
) -> Iterator[Finding]:
    """Yield what nodes of these kinds do: a sampler makes a picture, from another one or not."""
    lower = [kind.lower() for kind in kinds]
    told = {
        "models": ", ".join(islice(models, MOST_SHOWN)),
        "samplers": ", ".join(islice(samplers, MOST_SHOWN)),
    }
    if any("sampler" in kind for kind in lower):
        loads = any(kind.startswith(("loadimage", "loadvideo", "vhs_load")) for kind in lower)
        told |= {"from": "a picture that it loads" if loads else ""}
        means = "ai_edited" if loads else "ai_generated"
        yield finding(source, key, listed(told) or "a sampler of a net", means, STATED)
    shown = ", ".join(islice(dict.fromkeys(kinds), 40))
    yield finding(source, key, f"{len(kinds)} nodes: {shown}", "workflow", STATED)


def _of_settings(source: str, key: str, data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what JSON of prompts and settings says, of any program's."""
    flat = {**data, **_plain(data.get("image"))}  # InvokeAI 2 keeps them one level down
    names = {str(name).lower().replace(" ", "_"): value for name, value in flat.items()}
    known = key.lower() in _PROGRAMS or "app_version" in names
    prompts = {name: _said(names[name]) for name in _PROMPTS if names.get(name)}
    if not known and not (prompts and _TELLING & names.keys()):
        return
    told = {name: _said(names[name]) for name in _KEYS if names.get(name) not in (None, "")}
    yield finding(source, key, listed(told) or "settings of a net", "ai_generated", STATED)
    if prompts:
        yield finding(source, key, listed(prompts), "prompt", STATED)


def _plain(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _said(value: object) -> str:
    """Return a setting as text: of a model told by its parts its name."""
    if isinstance(value, dict):
        names = (value.get(name) for name in ("name", "model_name", "model", "base_caption"))
        found = next((name for name in names if name), None)
        value = found if found is not None else value
    if isinstance(value, dict | list):
        try:
            value = json.dumps(value, ensure_ascii=False)
        except RecursionError:
            value = "[...]"
    return str(value)[:MOST_LETTERS]
