#!/usr/bin/env bash
# Dataset.to_parquet of an image folder writes paths of this disk and no picture.
#
# Guess:     a parquet file that `datasets` writes of pictures holds their bytes, as those on the hub
#            do (`push_to_hub` embeds them), and its numbers mean 0 real, 1 fake.
# Behaviour: `load_dataset("imagefolder", ...)` followed by `to_parquet` gives rows whose `bytes` is
#            null and whose `path` is absolute, without a word; on another disk nothing can be read.
#            Folders are numbered in the order of the alphabet, so 0 is *fake*; only the schema's
#            metadata (`huggingface`, ClassLabel names) says so, and pandas drops it on writing again.
# Versions:  datasets 4.4.1, pyarrow 22.0.0, Pillow 11.3.0, pandas 2.3.3 (Python 3.11).
# Why here:  sets of real and fake pictures are passed on as parquet. One that is taken for a set of
#            pictures because its column is a struct of bytes and path fails at every row; and
#            numbers read as 0 real, 1 fake turn the classes round, with a good AUC upside down.
#
# Seen:      bytes are null in 4 of 4 rows; the first path is absolute: True
#            names by the metadata: ['fake', 'real']; label of real/0.png: 1
#            names after pandas has written it again: None
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "datasets==4.4.1" "pyarrow==22.0.0" "pillow==11.3.0" "pandas==2.3.3"
cd "$work"
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" - <<'PY' 2>/dev/null
import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from datasets import load_dataset
from PIL import Image

for word in ("real", "fake"):
    Path("set", word).mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(Path("set", word, f"{i}.png"))
load_dataset("imagefolder", data_dir="set", split="train").to_parquet("a.parquet")
table = pq.read_table("a.parquet")
rows = table.to_pylist()


def names(path):
    found = (pq.read_schema(path).metadata or {}).get(b"huggingface")
    return found and json.loads(found)["info"]["features"]["label"]["names"]


empty = sum(row["image"]["bytes"] is None for row in rows)
absolute = Path(rows[0]["image"]["path"]).is_absolute()
label = next(r["label"] for r in rows if r["image"]["path"].endswith("real/0.png"))
pd.read_parquet("a.parquet").to_parquet("b.parquet")
print(f"bytes are null in {empty} of {len(rows)} rows; the first path is absolute: {absolute}")
print(f"names by the metadata: {names('a.parquet')}; label of real/0.png: {label}")
print(f"names after pandas has written it again: {names('b.parquet')}")
raise SystemExit(
    not (empty == 4 and absolute and names("a.parquet") == ["fake", "real"] and label == 1
         and names("b.parquet") is None)
)
PY
