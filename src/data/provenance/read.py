"""What a file says of itself, apart from any score: all sources, the strongest words first."""

import os
import ssl
from pathlib import Path

from src.data.provenance import readers
from src.data.provenance.finding import (
    DAMAGED,
    MOST_FINDINGS,
    TOO_LARGE,
    UNREADABLE,
    Finding,
    NotReadError,
    Provenance,
    because,
    in_order,
)  # fmt: skip
from src.data.provenance.opened import READERS, OpenedFile
from src.errors import UserError

__all__ = ["ANCHORS", "Finding", "Provenance", "check_anchors", "provenance_of"]

ANCHORS = "RVF_C2PA_ANCHORS"  # names a PEM file of certificates whose word on signers is taken
del readers  # imported for what it registers


def provenance_of(path: Path, name: str | None = None, anchors: Path | None = None) -> Provenance:
    """Return what a picture or clip says of where it comes from.

    Whatever a file holds, this raises nothing: what is broken or of no known kind is said in
    `not_read`. Nothing is fetched, nothing of the file is run, no pixel is decoded. That nothing
    is found proves nothing: who saves a picture anew, or sends it by a messenger, drops it all.

    Args:
        path: the file.
        name: what it is called, where its path is another; the suffix is held against its content.
        anchors: a PEM file of root certificates (C2PA's trust list, a company's own); None takes
            the one that `RVF_C2PA_ANCHORS` names. Without any, no signer is trusted.

    Raises:
        UserError: the file of anchors cannot be read or holds no certificate.
    """
    trusted = _anchors(anchors)
    try:
        file = OpenedFile(path, name or "")
    except OSError as error:
        why = str(because(UNREADABLE, error.strerror or type(error).__name__))
        return Provenance((), dict.fromkeys(READERS, why))
    file.anchors = trusted
    findings: list[Finding] = []
    not_read: dict[str, str] = {}
    for source in READERS:
        try:
            # One by one: what was found before a reader stumbled is kept.
            for count, one in enumerate(READERS.get(source)(file)):
                if count == MOST_FINDINGS:
                    raise because(TOO_LARGE, f"more than {MOST_FINDINGS} things are said")
                findings.append(one)
        except NotReadError as why:
            not_read[source] = str(why)
        except UserError:  # of what was asked for, not of the file
            raise
        except Exception as error:  # noqa: BLE001 - whatever a hostile file makes of a library
            not_read[source] = str(because(DAMAGED, f"{type(error).__name__}: {error}"))
    return Provenance(in_order(findings), not_read)


def check_anchors() -> None:
    """Raise the UserError of trusted certificates that cannot be used, before any file is read."""
    _anchors(None)


def _anchors(path: Path | None) -> str:
    """Return the PEM of the certificates that are trusted; "" for none."""
    named = path or os.environ.get(ANCHORS)
    if not named:
        return ""
    try:
        text = Path(named).read_text(encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise UserError(f"{named}: the trusted certificates cannot be read ({error})") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UserError(f"{named}: no certificate in it; PEM is read (-----BEGIN CERTIFICATE-----)")
    try:  # c2pa-python takes what is no certificate, and trusts nobody
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise UserError(f"{named}: a certificate in it is damaged ({error})") from None
    return text
