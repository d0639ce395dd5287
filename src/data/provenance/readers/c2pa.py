"""C2PA Content Credentials: manifests that are signed over the file's own bytes (c2pa-python).

Nothing is fetched: neither a manifest that lies elsewhere nor a certificate's state. Who signs is
trusted only where the user gives anchors; without, a signature shows that nothing was changed
since it was made, by whoever made it. An edited picture's manifest holds those of its ancestors,
and where pixels come from stands there.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from src.data.provenance.finding import (
    DAMAGED,
    EXTRA_MISSING,
    NOT_FETCHED,
    SIGNED,
    SIGNED_UNTRUSTED,
    STATED,
    TOO_LARGE,
    UNSUPPORTED,
    Finding,
    because,
    finding,
    listed,
)  # fmt: skip
from src.data.provenance.opened import READERS, OpenedFile
from src.data.provenance.source_types import of_software, source_type
from src.errors import UserError

if TYPE_CHECKING:
    import c2pa

SOURCE = "c2pa"
MOST_MANIFESTS = 50
MOST_LETTERS = 32 * 2**20  # of all manifests as JSON
MOST_ACTIONS = 40  # of one manifest
# A key that is misspelt here would pass in silence: a test has a server that waits for a call.
_OFFLINE = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    "core": {"allowed_network_hosts": []},
}
_TRUSTED, _UNTRUSTED = "signingCredential.trusted", "signingCredential.untrusted"
_LABEL = re.compile(r"/c2pa/([^/]+)")
_ADDRESS = re.compile(r"https?://\S+")
_MINING = ("c2pa.training-mining", "cawg.training-mining")


@READERS.register(SOURCE)
def read_c2pa(file: OpenedFile) -> Iterator[Finding]:
    """Yield what the manifests of a file say; of one that fits nothing, that alone and its words.

    Raises:
        NotReadError: no c2pa-python, a kind that it does not read, a broken or remote manifest.
        UserError: the certificates to be trusted are none.
    """
    store, state = _store(file)
    if store is None:
        return
    results: Mapping[str, Any] = store.get("validation_results") or {}
    active = str(store.get("active_manifest", ""))
    failures = _codes(results.get("activeManifest"), "failure")
    broken = {code: said for code, (_, said) in failures.items() if _spoils(code)}
    is_whole = state in ("Valid", "Trusted")
    trusted = _trusted(results, active) if state == "Trusted" else set()
    if not is_whole:
        said = "; ".join(f"{code}: {text}" for code, text in broken.items()) or state
        yield finding(SOURCE, "validation_state", said, "signature_invalid", STATED)
    elif active not in trusted:
        said = failures.get(_UNTRUSTED, ("", "signing certificate untrusted"))[1]
        yield finding(SOURCE, "validation_state", said, "untrusted_signer", SIGNED_UNTRUSTED)
    spoilt = _spoilt(store, results)
    for label, manifest, title in islice(_manifests(store, active), MOST_MANIFESTS):
        strength = SIGNED if label in trusted else SIGNED_UNTRUSTED
        if not is_whole or label in spoilt:
            strength = STATED
        yield from _of_manifest(manifest, strength, title)


def _store(file: OpenedFile) -> tuple[dict[str, Any] | None, str]:
    """Return the manifest store as c2pa-python tells it, and its state; None of a file without."""
    try:
        import c2pa
    except (ImportError, OSError, RuntimeError):  # its library may be missing or of another machine
        raise because(EXTRA_MISSING, "pip install c2pa-python") from None
    context = _context(file.anchors)
    try:
        with file.path.open("rb") as stream:
            reader = c2pa.Reader.try_create(None, stream, context=context)
            if reader is None:
                return None, ""
            with reader:
                told = reader.json()
                if len(told) > MOST_LETTERS:
                    raise because(TOO_LARGE, f"manifests of {len(told):,} letters")
                return json.loads(told), str(reader.get_validation_state())
    except c2pa.C2paError as error:
        said = str(error)
        if said.startswith("NotSupported"):
            raise because(UNSUPPORTED, "c2pa-python reads no files of this kind") from None
        address = _ADDRESS.search(said)
        if said.startswith("Remote") and address:
            raise because(NOT_FETCHED, address[0]) from None
        raise because(DAMAGED, said) from None


def _context(anchors: str) -> "c2pa.Context":
    """Return settings of c2pa-python; new each time (.06 ms): a kept one is void after a fork."""
    import c2pa

    settings: dict[str, Any] = dict(_OFFLINE)
    if anchors:
        settings["trust"] = {"trust_anchors": anchors}
    try:
        return c2pa.Context(c2pa.Settings.from_dict(settings))
    except c2pa.C2paError as error:
        raise UserError(
            f"the certificates to be trusted cannot be used ({error}); give whole certificates in "
            "PEM, one behind the other"
        ) from None


def _codes(results: object, part: str) -> dict[str, tuple[str, str]]:
    """Return code -> (label of the manifest, explanation) of one part of validation results."""
    found = results.get(part) if isinstance(results, dict) else None
    codes = {}
    for one in found or ():
        label = _LABEL.search(str(one.get("url", "")))
        said = (label[1] if label else "", str(one.get("explanation", "")))
        codes.setdefault(str(one.get("code", "")), said)
    return codes


def _deltas(results: Mapping[str, Any], part: str) -> Iterator[tuple[str, str]]:
    """Yield code and label of what was found of ancestors, beyond what their children say."""
    for delta in results.get("ingredientDeltas") or ():
        for one in (delta.get("validationDeltas") or {}).get(part) or ():
            label = _LABEL.search(str(one.get("url", "")))
            yield str(one.get("code", "")), label[1] if label else ""


def _trusted(results: Mapping[str, Any], active: str) -> set[str]:
    """Return the labels of the manifests whose signer the anchors vouch for, as found here."""
    found = {label for code, label in _deltas(results, "success") if code == _TRUSTED}
    return found | {active}


def _spoils(code: str) -> bool:
    """Tell whether a failure is of the content or the signature, not of who vouches for whom."""
    return not code.endswith(".untrusted") and not code.startswith("cawg.")


def _spoilt(store: Mapping[str, Any], results: Mapping[str, Any]) -> set[str]:
    """Return the labels of ancestors that did not fit: when they were taken in, or now."""
    found = {label for code, label in _deltas(results, "failure") if _spoils(code)}
    manifests: Mapping[str, Any] = store.get("manifests") or {}
    for manifest in manifests.values():
        for one in manifest.get("ingredients") or ():
            recorded = one.get("validation_results") or {}
            codes = set(_codes(recorded.get("activeManifest"), "failure"))
            # Before version 3 of ingredients.
            codes |= {str(entry.get("code", "")) for entry in one.get("validation_status") or ()}
            if any(map(_spoils, codes)):
                found.add(str(one.get("active_manifest", "")))
    return found


def _manifests(store: Mapping[str, Any], active: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield label, manifest and, of an ancestor, its title: the active one, then what it is from.

    A redacted or missing one is left out; one that is its own ancestor comes once.
    """
    manifests: Mapping[str, Any] = store.get("manifests") or {}
    waiting, seen = [(active, "")], set()
    while waiting:
        label, title = waiting.pop(0)
        manifest = manifests.get(label)
        if label in seen or not isinstance(manifest, dict):
            continue
        seen.add(label)
        yield label, manifest, title
        for one in manifest.get("ingredients") or ():
            name = str(one.get("title") or "without a title")
            waiting.append((str(one.get("active_manifest", "")), name))


def _of_manifest(manifest: dict[str, Any], strength: str, title: str) -> Iterator[Finding]:
    def say(field: str, value: object, means: str) -> Finding:
        shown = f"{value} (of its ancestor {title})" if title else value
        return finding(SOURCE, field, shown, means, strength)

    signed: Mapping[str, Any] = manifest.get("signature_info") or {}
    who = " / ".join(str(signed[key]) for key in ("issuer", "common_name") if signed.get(key))
    yield say("signature_info", who or "without a name", "signed_by")
    if signed.get("time"):
        yield say("signature_info.time", signed["time"], "time")
    for name in _generators(manifest):
        yield say("claim_generator", name, of_software(name))
    for ingredient in islice(manifest.get("ingredients") or (), MOST_MANIFESTS):
        named = listed({key: ingredient.get(key) for key in ("title", "format", "relationship")})
        yield say("ingredient", named, "ancestor")
    for assertion in manifest.get("assertions") or ():
        label, data = str(assertion.get("label", "")), assertion.get("data")
        for action in islice(_actions(label, data), MOST_ACTIONS):
            agent = _named(action.get("softwareAgent"))
            done = str(action.get("action", ""))
            yield say("action", f"{done} by {agent}" if agent else done, "action")
            if of_software(agent) == "ai_tool":
                yield say("softwareAgent", agent, "ai_tool")
        for value in islice(_source_types(data), MOST_ACTIONS):
            code, means = source_type(value)
            yield say("digitalSourceType", code, means)
        if label.startswith(_MINING) and isinstance(data, dict):
            entries = data.get("entries")
            told = {key: _use(value) for key, value in entries.items()} if entries else {}
            yield say(label, listed(told), "mining")


def _generators(manifest: Mapping[str, Any]) -> list[str]:
    told = manifest.get("claim_generator_info")
    names = [_named(one) for one in told or ()]
    return [name for name in names if name] or [
        name for name in [str(manifest.get("claim_generator") or "")] if name
    ]


def _named(agent: object) -> str:
    """Return name and version of software, told as a text or as both apart."""
    if isinstance(agent, dict):
        return f"{agent.get('name', '')} {agent.get('version', '')}".strip()
    return str(agent or "")


def _actions(label: str, data: object) -> Iterator[dict[str, Any]]:
    if label.startswith("c2pa.actions") and isinstance(data, dict):
        for action in data.get("actions") or ():
            if isinstance(action, dict):
                yield action


def _source_types(data: object, depth: int = 0) -> Iterator[str]:
    """Yield the digital source types anywhere in an assertion: of actions, of metadata."""
    if depth > 12 or not isinstance(data, dict | list):
        return
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        if isinstance(key, str) and key.lower().endswith("digitalsourcetype"):
            value = value.get("@id", "") if isinstance(value, dict) else value
            if value:
                yield str(value)
        else:
            yield from _source_types(value, depth + 1)


def _use(entry: object) -> str:
    return str(entry.get("use", "")) if isinstance(entry, dict) else str(entry)
