"""Benchmarks that no machine at hand can run in earnest still run to their end."""

import json
import sys

import pytest
import torch

from tests.conftest import REPO, run_command

sys.path.insert(0, str(REPO / "benchmarks"))
from gpu import Book, report


@pytest.mark.nightly
def test_the_gpu_benchmark_runs_to_its_end_on_a_cpu(tmp_path):
    path = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--tiny", "--workers", "0", "--out", path]
    done = run_command("benchmarks/gpu.py", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert found["left_out"] == []
    ours, theirs = ["ready", "cached", "jpeg"], ["timm, ready", "timm, jpeg"]
    measured = [(row["net"], row["way"]) for row in found["rows"]]
    nets = (("efficientnet", theirs), ("vit", theirs), ("vit, LoRA", []))
    assert measured == [(net, way) for net, also in nets for way in [*ours, *also]]
    assert all(row["rate"] > 0 for row in found["rows"])
    assert all(("predicted" in row) == (row["way"] == "cached") for row in found["rows"])
    assert "| vit, LoRA | jpeg |" in done.stdout


def test_what_does_not_fit_or_fails_is_left_out_and_said(capsys):
    def fails():
        raise RuntimeError("no kernel image\nof this card")

    book = Book(1.0, torch.device("cpu"))
    book.measure("net", "ready", 1.0, lambda: {"rate": 100.0})
    book.measure("net", "jpeg", 1.0, lambda: {"rate": 80.0})
    book.measure("net", "timm, jpeg", 1.0, lambda: {"rate": 100.0})
    book.measure("other", "ready", 1.0, fails)
    book.measure("other", "jpeg", 61.0, lambda: pytest.fail("there is no time"))
    about = {"device": "card", "torch": "2", "batch": 4, "image_size": 32, "workers": 0}
    report(book, about)
    said = capsys.readouterr().out
    assert "| net | jpeg | 80 | 20% |" in said
    assert "left out: other, ready: no kernel image\n" in said
    assert "left out: other, jpeg: no time left" in said
    assert "short net, jpeg: 0.80 times timm's" in said
