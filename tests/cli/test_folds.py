"""`python -m src folds --scheme clusters`, and what trains on such folds."""

from pathlib import Path

import pytest
import torch

from src import paths
from src.artifacts.clusters import read_clusters
from src.artifacts.folds import read_folds
from src.cli import folds as cli_folds
from src.config import read_model
from src.data.audit.shift import TEST, SchemeShift
from src.models.classifier import build_classifier
from src.training import features
from tests.cli.conftest import SCHEME, Command

CLUSTERS = "clusters8x2_s0"


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the list of features that are extracted from now on."""
    made: list[Path] = []
    extract = features._extract
    monkeypatch.setattr(
        features, "_extract", lambda *given: made.append(given[0]) or extract(*given)
    )
    return made


def test_clusters_and_probes_share_one_pass_and_the_folds_train_and_tune(
    command: Command, tiny: Path, passes: list[Path]
) -> None:
    (tiny / "configs/models/probe.yaml").write_text(
        "extends: tiny\nstrategy: feature_extractor\noptim: {ema_decay: null}\n"
    )
    torch.manual_seed(0)
    net, _ = build_classifier(read_model("tiny"))
    torch.save(net.net.state_dict(), tiny / "start.pth")
    weights = ["--weights", str(tiny / "start.pth")]
    asked = ["--scheme", CLUSTERS, "--features", "tiny", *weights]
    said = command("folds", *asked, "--preview")
    assert paths.clusters_png("tiny", CLUSTERS).is_file()
    assert len(passes) == 1
    assert "holds out clusters" in said
    assert "clusters: 8 by features of tiny, of" in said
    folds = read_folds(paths.folds_csv("tiny", CLUSTERS))
    assert read_clusters("tiny", CLUSTERS).table["item_id"].tolist() == folds["item_id"].tolist()

    command("train", "--model", "probe", *weights)  # by groups: the same items, the same features
    command("train", "--model", "probe", *weights, "--scheme", "clusters")
    assert len(passes) == 1
    assert f"tiny/{CLUSTERS}" in command("tune", "--scheme", "clusters")
    assert paths.oof_csv("tiny", CLUSTERS, "probe", 1).is_file()

    beside = ["--scheme", "lodo", "--n-folds", "3", "--seed", "1", "--no-scan", "--preview"]
    refused = command("folds", "--shift", *beside, code=2)
    assert "drop --scheme --n-folds --seed --no-scan --preview" in refused
    shift = command("folds", "--shift", "--features", "tiny", *weights)
    assert len(passes) == 2  # of the test items alone
    assert "tells most about shift" in shift
    assert "test items are told from train items by" in shift
    assert "scheme lodo wants a domain" in shift
    del passes[1:]

    passes[0].unlink()  # and the other way round: a probe first
    paths.run_record("tiny", SCHEME, "probe", 0).unlink()
    command("train", "--model", "probe", *weights, "--fold", "0")
    paths.folds_csv("tiny", CLUSTERS).unlink()
    before = paths.clusters_csv("tiny", CLUSTERS).read_bytes()
    command("folds", *asked)
    assert len(passes) == 2
    assert paths.clusters_csv("tiny", CLUSTERS).read_bytes() == before
    assert "made of tiny's features, not of effnet_b0's" in command(
        "folds", "--scheme", "clusters", "--features", "effnet_b0", code=2
    )


def test_folds_that_cannot_be_told_are_named_and_clusters_come_first_by_construction(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = float("nan")
    found = [
        SchemeShift("clusters8_s0", (0.9, 0.8), is_made=True),
        SchemeShift("lodo", (0.7, nan, 0.8), is_made=True),
        SchemeShift("sgkf2_s0", (nan, nan), is_made=False),
        SchemeShift(TEST, (0.6,), is_made=True),
    ]
    monkeypatch.setattr(cli_folds, "compare_schemes", lambda *_: found)
    said = command("folds", "--shift")
    assert "lodo          0.750  0.70 - 0.80" in said
    assert "sgkf2_s0      -      - -" in said
    assert "lodo: not told of fold(s) 1, too few groups; not in the mean" in said
    assert "first almost by construction" in said
    assert "of the other schemes lodo tells most: 0.750" in said
    assert "0.600; lodo comes nearest" in said
    found[:] = [found[2], SchemeShift(TEST, (nan,), is_made=True)]
    assert "of no scheme can it be told" in command("folds", "--shift")


def test_what_cannot_be_is_refused_before_anything_is_extracted(
    command: Command, passes: list[Path]
) -> None:
    for words, answer in [
        (["--scheme", "clusters3_s0"], "3 clusters and 5 folds"),
        (["--scheme", "clusters20_s0", "--n-folds", "3"], "already says how many folds"),
        (["--scheme", "clusters", "--features", "efnet_lite0"], "effnet_lite0"),
    ]:
        assert answer in command("folds", *words, code=2)
    assert not passes
    assert "32 items in 32 groups" in command(
        "folds", "--scheme", "clusters40_s0", "--features", "tiny", code=2
    )
    assert list(paths.folds_dir("tiny").glob("*")) == [paths.label_names_json("tiny")]
