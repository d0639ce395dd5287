#!/bin/sh
# Guess: c2pa-python refuses settings that it does not know, as it refuses values of a wrong type.
#
# Behaviour: Settings.from_dict takes any name in silence, in any section. A text in place of a
# truth value is an error, a misspelt name is none, and its setting keeps its default: with
# `remote_manifest_fetching` in place of `remote_manifest_fetch` the address that a picture names is
# called all the same, and with `trust_anchor` in place of `trust_anchors` nobody is trusted. A
# listener on this machine counts the calls. Seen: the lines that this prints.
#
# Versions: c2pa-python 0.38.1 (c2pa-rs 0.91.3), cryptography 50.0.2.
#
# Why it matters here: whoever looks at pictures of strangers without network believes that it is
# off. Only a call that does not come shows that it is; a test here waits for one.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    c2pa-python==0.38.1 cryptography==50.0.2 pillow==13.0.0
"$work/venv/bin/python" - <<'PY'
import io
import json
import sys
import threading
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

calls = []


class Listener(BaseHTTPRequestHandler):
    def do_GET(self):
        calls.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Listener)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}/manifest"


def certificate(name, issuer, key, issuer_key, ca):
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(issuer)
    made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
    now = datetime(2026, 1, 1)
    made = made.not_valid_before(now).not_valid_after(now + timedelta(days=36500))
    made = made.add_extension(x509.BasicConstraints(ca, None), True)
    made = made.add_extension(
        x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), True)
    made = made.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
    if not ca:
        made = made.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), True)
    return made.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def named(text):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])


root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
root = certificate(named("root"), named("root"), root_key, root_key, True)
chain = certificate(named("signer"), named("root"), key, root_key, False) + root
secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                           serialization.NoEncryption())


def signed(remote):
    plain, target = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64)).save(plain, "JPEG")
    kind = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    done = {"action": "c2pa.created", "digitalSourceType": kind}
    builder = c2pa.Builder(json.dumps({
        "claim_generator_info": [{"name": "test"}], "format": "image/jpeg",
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [done]}}]}))
    if remote:
        builder.set_no_embed()
        builder.set_remote_url(address)
    info = c2pa.C2paSignerInfo("es256", chain, secret, None)
    plain.seek(0)
    builder.sign(c2pa.Signer.from_info(info), "image/jpeg", plain, target)
    return target.getvalue()


def read(data, settings):
    """Return what becomes of a picture under settings, and how many calls that made."""
    before = len(calls)
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(settings))
    except c2pa.C2paError as error:
        return f"refused: {error}", 0
    try:
        found = str(c2pa.Reader("image/jpeg", io.BytesIO(data), context=context)
                    .get_validation_state())
    except c2pa.C2paError as error:
        found = str(error).split(" http")[0]
    return found, len(calls) - before


elsewhere, inside = signed(True), signed(False)
cases = (
    ("fetch off", elsewhere, {"verify": {"remote_manifest_fetch": False}}, 0),
    ("wrong type", elsewhere, {"verify": {"remote_manifest_fetch": "no"}}, 0),
    ("wrong name", elsewhere, {"verify": {"remote_manifest_fetching": False}}, 1),
    ("wrong section", elsewhere, {"verifying": {"remote_manifest_fetch": False}}, 1),
)
as_seen = True
for what, data, settings, wanted in cases:
    said, count = read(data, settings)
    print(f"{what:14} {json.dumps(settings):52} calls: {count}  {said[:60]}")
    as_seen &= count == wanted and (what == "wrong type") == said.startswith("refused")
for name in ("trust_anchors", "trust_anchor"):
    said, _ = read(inside, {"trust": {name: root.decode()}})
    print(f"{name}: the signer is {said}")
    as_seen &= said == ("Trusted" if name == "trust_anchors" else "Valid")
if not as_seen:
    sys.exit("not what was seen with these versions")
PY
