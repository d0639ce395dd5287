#!/bin/bash
# c2pa-python's Context, made once, cannot be used by a forked process: every file seems broken.
#
# Guess: a Context holds settings; made once before workers are forked, it serves them all, as any
#   Python object does.
# Behaviour: in the child, Reader.try_create(..., context=kept) raises C2paError, "Context is not
#   valid", for every file, also for one without any manifest, for which it returns None in the
#   parent. A Context made in the child works, and so does reading without one.
# Versions: c2pa-python 0.38.1, Pillow 13.0.0, Python 3.11, Linux.
# Why it matters here: data loaders fork. A reader that takes the error for a damaged manifest would
#   say of every file that its credentials are broken. Ours makes a new Context for each file.
#
# Seen: prints what parent and children get; exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check c2pa-python==0.38.1 pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import io
import os
import sys

import c2pa
from PIL import Image

picture = io.BytesIO()
Image.new("RGB", (8, 8)).save(picture, "JPEG")


def new_context():
    return c2pa.Context(c2pa.Settings.from_dict({"verify": {"remote_manifest_fetch": False}}))


def ask(context):
    try:
        found = c2pa.Reader.try_create("image/jpeg", io.BytesIO(picture.getvalue()), context=context)
    except c2pa.C2paError as error:
        return f"error: {error}"
    return "no manifest" if found is None else "a manifest"


def in_a_child(make):
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(there, ask(make()).encode())
        os._exit(0)
    os.close(there)
    said = os.read(here, 1000).decode()
    os.waitpid(child, 0)
    return said


kept = new_context()
seen = {
    "parent, its own context": ask(kept),
    "child, the parent's": in_a_child(lambda: kept),
    "child, its own": in_a_child(new_context),
    "child, none": in_a_child(lambda: None),
}
for who, said in seen.items():
    print(f"{who}: {said}")
wanted = ["no manifest", "error: Context is not valid", "no manifest", "no manifest"]
sys.exit(list(seen.values()) != wanted)
EOF
