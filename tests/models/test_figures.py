"""Figures kept in place of building nets: that they are true, and when they are counted again."""

import subprocess
import sys

import pytest

from src import paths
from src.config import model_names, parse_model, read_model
from src.models import figures as module
from src.models.figures import count, figures_of
from tests.conftest import REPO

OWN = {"backbone": {"name": "compact_net", "kwargs": {"widths": [4, 4]}}}
FEW = {"compact32", "clip_sidenet", "effnet_b0_stem1", "mobilenetv2_100"}
NAMES = [
    pytest.param(name, marks=() if name in FEW else pytest.mark.nightly)
    for name in sorted(path.stem for path in (REPO / "configs" / "models").glob("*.yaml"))
]


def refuse(*_: object) -> None:
    raise AssertionError("a net is built")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shipped_is_what_a_net_counts(name, monkeypatch):
    """Where it is not: python -m src.models.figures."""
    config = read_model(name)
    counted = count(config)
    monkeypatch.setattr(module, "count", refuse)
    assert figures_of({name: config}) == {name: counted}


def test_no_shipped_model_has_to_be_built(artefact_root, monkeypatch):
    monkeypatch.setattr(module, "count", refuse)
    assert set(figures_of({name: read_model(name) for name in model_names()})) == set(model_names())
    assert list(artefact_root.iterdir()) == []


def test_the_list_is_printed_without_torch():
    code = "import sys; from src.cli import parsers; assert parsers.main('models', []) == 0; "
    code += "assert not {'torch', 'timm', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True, capture_output=True)


@pytest.fixture
def counted(artefact_root, monkeypatch):
    """Return the configs that were counted, as names of their backbones."""
    seen = []
    monkeypatch.setattr(module, "count", lambda config: (seen.append(config), count(config))[1])
    return seen


def test_a_config_of_ones_own_is_counted_once_until_a_net_may_be_another(counted, monkeypatch):
    own = parse_model(OWN, "own")
    # 3 -> 4 and twice 4 -> 4 with its batch norms, at 32 x 32; the head has a weight a channel
    first = figures_of({"own": own})["own"]
    assert first.macs == 32 * 32 * 9 * (3 * 4 + 2 * 4 * 4) + 4
    assert figures_of({"other": own, "compact32": read_model("compact32")})["other"] == first
    assert len(counted) == 1
    for changed in ({"widths": [4, 8]}, {"widths": [4, 4], "extra": 1}):
        assert module.key_of(
            parse_model({"backbone": OWN["backbone"] | {"kwargs": changed}}, "")
        ) != (module.key_of(own))
    wider = parse_model({**OWN, "input": {"image_size": 16}}, "own")
    assert figures_of({"own": own, "wider": wider})["wider"].macs < first.macs
    assert counted[1:] == [wider]
    monkeypatch.setattr(module, "_versions_and_code", lambda: {"code": "of tomorrow"})
    assert figures_of({"own": own})["own"] == first
    assert counted[2:] == [own]


def test_what_is_shipped_holds_for_its_versions_alone(counted, monkeypatch):
    monkeypatch.setattr(module, "_versions", lambda: {"timm": "0.9", "torch": "2.12.0"})
    compact = read_model("compact32")
    assert figures_of({"compact32": compact}) == figures_of({"compact32": compact})
    assert counted == [compact]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"versions": 1}', '{"versions": V, "figures": [[{}, [1]]]}']
)
def test_a_damaged_memory_is_made_again(counted, text):
    own = parse_model(OWN, "own")
    first = figures_of({"own": own})
    versions = (
        paths.figures_cache().read_text().split(', "figures"')[0].removeprefix('{"versions": ')
    )
    paths.figures_cache().write_text(text.replace("V", versions))
    assert figures_of({"own": own}) == figures_of({"own": own}) == first
    assert len(counted) == 2
