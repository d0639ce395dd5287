"""`python -m src`: verbs, help, mistakes."""

import pytest

from src import __main__ as entry


def call(monkeypatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["src", *words])
    return entry.main()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_verb_with_what_it_does(monkeypatch, capsys, words):
    assert call(monkeypatch, *words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("usage: python -m src <verb>")
    for verb, text in entry.VERBS.items():
        assert f"  {verb} " in out
        assert text in out


@pytest.mark.parametrize(
    ("typed", "meant"), [("modelz", "models"), ("dmeo", "demo"), ("Data", "data")]
)
def test_an_unknown_verb_offers_the_nearest(monkeypatch, capsys, typed, meant):
    assert call(monkeypatch, typed) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"unknown verb '{typed}'; did you mean '{meant}'" in err
    assert all(verb in err for verb in entry.VERBS)


@pytest.mark.parametrize("verb", sorted(entry.VERBS))
def test_every_verb_shows_its_flags(monkeypatch, capsys, verb):
    with pytest.raises(SystemExit, match="0"):
        call(monkeypatch, verb, "--help")
    assert capsys.readouterr().out.startswith(f"usage: python -m src {verb} ")


def test_the_process_ends_with_2_and_one_line(run_cli):
    done = run_cli("-m", "src", "nonsense")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown verb 'nonsense'")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_arguments_after_the_verb_are_the_verbs(monkeypatch, capsys):
    assert call(monkeypatch, "models", "--modle") == 2
    assert "unknown argument '--modle'" in capsys.readouterr().err


def test_models_lists_all_with_size_and_licence(monkeypatch, capsys):
    """That each config can be built is a test of the zoo; here a few of each way to start."""
    from src import config
    from src.models.backbones.compact import CompactNet

    names = ["compact32", "effnet_b0", "fsfm_vit_b16", "mobilenetv2_100"]
    assert set(names) < set(config.model_names())
    monkeypatch.setattr(config, "model_names", lambda: names)
    assert call(monkeypatch, "models") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1:-2]}
    assert sorted(rows) == config.model_names()
    for name, line in rows.items():
        settings = config.read_model(name)
        assert settings.licence in line
        assert settings.about in line
    compact = config.read_model("compact32")
    count = sum(p.numel() for p in CompactNet(**compact.backbone.kwargs).parameters())
    assert f"{count / 1e6:.2f} M" in rows["compact32"]
    # EfficientNet-B0 less its 1000-class head; its paper counts 0.39 G with it.
    assert " 4.01 M    0.38  224 " in rows["effnet_b0"]
    assert rows["fsfm_vit_b16"].count("of the file") == 2
    assert "timm:NAME" in lines[-1]
