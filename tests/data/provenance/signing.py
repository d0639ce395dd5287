"""Pictures signed by certificates made here, for tests: a root, and who signs with its blessing."""

import io
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

c2pa = pytest.importorskip("c2pa", reason="needs c2pa-python")
from cryptography import x509  # noqa: E402 - it comes with c2pa-python
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import AuthorityInformationAccessOID as Aia  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: E402

TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
DAYS = timedelta(days=30)


@cache
def chain(ocsp: str = "") -> tuple[str, str, str]:
    """Return root, signer's chain and private key as PEM; `ocsp` is where to ask about it."""
    now = datetime(2026, 1, 1)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = _name("Test Root")
    root = (
        _builder(root_name, root_name, root_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    made = (
        _builder(_name("Test Camera"), root_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False
        )
    )
    if ocsp:
        place = x509.UniformResourceIdentifier(ocsp)
        made = made.add_extension(
            x509.AuthorityInformationAccess([x509.AccessDescription(Aia.OCSP, place)]), False
        )
    pem = serialization.Encoding.PEM
    signer = made.sign(root_key, hashes.SHA256()).public_bytes(pem).decode()
    secret = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return root.public_bytes(pem).decode(), signer + root.public_bytes(pem).decode(), secret


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{common} <b>Inc</b>"),
         x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )  # fmt: skip


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, now: datetime) -> Any:
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now).not_valid_after(now + 365 * 100 * timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
    )  # fmt: skip


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=not signs,
        crl_sign=not signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def signed(
    data: bytes, kind: str = "image/jpeg", *, source_type: str = "", agent: str = "Test Agent",
    parents: Sequence[bytes] = (), ocsp: str = "", remote: str = "",
) -> bytes:  # fmt: skip
    """Return a file with a manifest; `remote` is where the manifest would be, in place of in it."""
    done: dict[str, Any] = {
        "action": "c2pa.created",
        "softwareAgent": {"name": agent, "version": "1.2"},
    }
    if source_type:
        done["digitalSourceType"] = TYPES + source_type
    if parents:  # what is opened must say which of its ingredients that is
        done |= {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent 0"]}}
    manifest = {
        "claim_generator_info": [{"name": "Test Generator", "version": "0.1"}],
        "title": "a <script>title</script>", "format": kind,
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [done]}}],
    }  # fmt: skip
    _, certificates, secret = chain(ocsp)
    info = c2pa.C2paSignerInfo("es256", certificates.encode(), secret.encode(), None)
    builder = c2pa.Builder(json.dumps(manifest))
    for number, parent in enumerate(parents):
        told = {"title": f"<i>{number}", "relationship": "parentOf", "label": f"parent {number}"}
        builder.add_ingredient(json.dumps(told), kind, io.BytesIO(parent))
    if remote:
        builder.set_no_embed()
        builder.set_remote_url(remote)
    target = io.BytesIO()
    builder.sign(c2pa.Signer.from_info(info), kind, io.BytesIO(data), target)
    return target.getvalue()


def anchors(folder: Path, ocsp: str = "") -> Path:
    """Write the root's certificate and return its file."""
    path = folder / "anchors.pem"
    path.write_text(chain(ocsp)[0])
    return path
