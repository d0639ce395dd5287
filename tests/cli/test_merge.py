"""Variants and merges through the commands' own main functions, up to a submission."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from src import paths
from src.artifacts.runs import read_record
from src.cli import evaluate, merge, train
from src.config import read_model
from tests.cli.conftest import SCHEME, Command, write_pictures
from tests.records import change_sealed
from tests.shared import tiny_model

GREEDY = "merge_method: uniform\nmodels: [tiny_v0, tiny_v1, tiny_v2]\nselect: greedy\n"
TIES = """
merge_method: ties
base_model: tiny_v2
models: [tiny_v0, tiny_v1]
parameters: {weight: 0.5}
search: {density: [0.3, 1.0]}
metric: auc
"""


@pytest.fixture
def tiny(artefact_root: Path) -> Path:
    """Write input/tiny, input/other and the config `tiny`."""
    rng = np.random.default_rng(0)
    write_pictures(artefact_root / "input" / "tiny", 48, 16, rng)
    write_pictures(artefact_root / "input" / "other", 24, 0, rng)
    configs = artefact_root / "configs"
    (configs / "models").mkdir(parents=True)
    (configs / "merges").mkdir()
    (configs / "models" / "tiny.yaml").write_text(tiny_model())
    (configs / "merges" / "soup.yaml").write_text(GREEDY)
    (configs / "merges" / "sign.yaml").write_text(TIES)
    return artefact_root


_KEPT: list[Path] = []


@pytest.fixture
def three(command: Command, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Train tiny_v0, _v1 and _v2 on fold 0, or copy what was trained before."""
    if _KEPT:
        shutil.copytree(_KEPT[0], tiny, dirs_exist_ok=True)
        return
    command("variants", "tiny", "--n", "3", "--fold", "0", "--set", "optim.epochs=1")
    _KEPT.append(tmp_path_factory.mktemp("three") / "root")
    shutil.copytree(tiny, _KEPT[0])


def record_score(names: tuple[str, str], model: str) -> float:
    return read_record(paths.run_record(*names, model, 0))["merged_from"]["chosen_score"]


def test_from_variants_to_a_submission(command: Command, tiny: Path) -> None:
    told = command("variants", "tiny", "--n", "3", "--fold", "0", "--set", "optim.epochs=2")
    assert "models: [tiny_v0, tiny_v1, tiny_v2]" in told
    assert [read_model(f"tiny_v{k}").seed for k in range(3)] == [42, 43, 44]
    assert {read_model(f"tiny_v{k}").start_seed for k in range(3)} == {42}
    assert len({read_model(f"tiny_v{k}").optim.lr for k in range(3)}) == 3
    again = command("variants", "tiny", "--n", "3", "--fold", "0", "--set", "optim.epochs=2")
    assert again.count("finished already") == 3

    told = command("merge", "soup", "sign", "--holdout", "other", "--fold", "0")
    names = ("tiny", SCHEME)
    record = read_record(paths.run_record(*names, "soup", 0))
    assert record["selection"] == "best"
    assert record["merged_from"]["chosen"]["models"]
    assert set(record["merged_from"]["barriers"]) == {"tiny_v1", "tiny_v2"}
    home = paths.merge_report_dir(*names)
    assert {path.name for path in home.iterdir()} == {
        "soup_fold_0_path.png", "sign_fold_0_path.png", "soup_sign.csv", "soup_sign.png",
        "soup_fold_0_tried.csv", "sign_fold_0_tried.csv", "sign_fold_0_sweep.png",
    }  # fmt: skip
    tried = pd.read_csv(home / "sign_fold_0_tried.csv")
    assert tried["density"].tolist() == [0.3, 1.0]
    assert tried["auc"].max() == pytest.approx(record_score(names, "sign"))
    assert len(pd.read_csv(home / "soup_fold_0_tried.csv")) >= 5
    table = pd.read_csv(home / "soup_sign.csv").set_index("model")
    assert set(table.index) == {
        "tiny_v0", "tiny_v1", "tiny_v2", "soup", "sign", "ensemble of probs"
    }  # fmt: skip
    assert table.loc["soup", "kind"] == "merge, chosen"
    assert (table["rows"] == 24).all()
    assert table.loc["ensemble of probs", "forwards"] == 3
    assert table.loc["soup", "forwards"] == 1
    assert table["auc other"].between(0, 1).all()
    assert "soup fold 0: merged already" in command("merge", "soup")

    told = command("tune", "--models", "soup", "sign", "--trials", "3")
    assert "selected" in told or "chosen" in told
    command("predict")
    submission = pd.read_csv(paths.submission_csv("tiny", "tuned"))
    assert len(submission) == 16
    assert paths.test_views(*names, "soup", 0).exists()


@pytest.mark.usefixtures("three")
def test_a_merge_stopped_at_its_report_is_made_again(
    command: Command, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has a record is skipped: its report has to be there by then."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for plot in ("plot_sweep", "plot_paths"):
        with monkeypatch.context() as patch:
            patch.setattr(merge, plot, stop)
            command("merge", "sign", "--fold", "0", code=130)
    command("merge", "sign", "--fold", "0")
    home = paths.merge_report_dir("tiny", SCHEME)
    for name in ("path.png", "tried.csv", "sweep.png"):
        assert (home / f"sign_fold_0_{name}").is_file()


def test_all_folds_and_the_refits(command: Command, tiny: Path) -> None:
    (tiny / "configs/merges/mean.yaml").write_text("merge_method: uniform\nmodels: [tiny, twin]\n")
    for words in (("tiny",), ("tiny", "--set", "seed=7", "--as", "twin")):
        command("train", "--model", *words)
        command("train", "--model", *words, "--fold", "all")
    told = command("merge", "mean", "--no-check")
    assert "folds 0, 1: 48 held-out rows" in told
    told = command("merge", "mean", "--fold", "all", "--holdout", "other")
    assert "it has seen every training row" in told
    assert "24 items that none of them saw" in told
    assert not paths.oof_csv("tiny", SCHEME, "mean", "all").exists()
    assert [line.split()[0] for line in told.splitlines() if "macro-F1" in line] == [
        "tiny", "twin", "mean", "ensemble"
    ]  # fmt: skip
    (tiny / "configs/merges/across.yaml").write_text(
        "merge_method: uniform\nmodels: [tiny@fold_0, tiny@fold_1]\n"
    )
    told = command("merge", "across", "--fold", "all", "--holdout", "other")
    assert [line.split()[0] for line in told.splitlines() if "macro-F1" in line] == [
        "tiny@fold_0", "tiny@fold_1", "across", "ensemble"
    ]  # fmt: skip
    command("tune", "--models", "mean")
    command("predict", "--refit")


def test_files_are_merged_without_scores(command: Command, tiny: Path, tmp_path: Path) -> None:
    command("train", "--model", "tiny", "--fold", "0")
    made = paths.checkpoint("tiny", SCHEME, "tiny", 0)
    plain = tmp_path / "plain.safetensors"
    save_file(load_file(made), plain)
    recipe = tmp_path / "files.yaml"
    recipe.write_text(f"merge_method: uniform\nmodels: ['{made}', '{plain}']\n")
    output = tmp_path / "out.safetensors"
    told = command("merge", str(recipe), "--output", str(output))
    assert "same weights" in told
    assert all((load_file(output)[k] == v).all() for k, v in load_file(made).items())
    told = command("merge", str(recipe), "--output", str(output), "--fold", "0", code=2)
    assert "leave --fold out" in told
    recipe.write_text(f"merge_method: uniform\nmodels: ['{made}', tiny]\n")
    assert "'tiny' is not a file" in command("merge", str(recipe), "--output", str(output), code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("merge", "soop"), "unknown merge 'soop'; did you mean 'soup'"),
        (("merge", "soup", "soup"), "soup is given twice"),
        (("merge", "soup"), "holds no fold file"),
        (("variants", "tiny", "--n", "1"), "want 2 or more variants"),
        (("variants", "tiny", "--lr-factor", "0.5"), "want 1 or more"),
        (("variants", "tiny", "--augments", "crop_flop"), "crop_flop"),
    ],
)
def test_mistakes(command: Command, words: tuple[str, ...], said: str) -> None:
    assert said in command(*words, code=2)


def test_a_holdout_is_another_data_set(command: Command) -> None:
    command("train", "--model", "tiny", "--fold", "0")
    said = command("merge", "soup", "--holdout", "tiny", code=2)
    assert "that is what the models were trained on" in said
    assert "no fold of tiny/sgkf2_s0 is finished by all of" in command("merge", "soup", code=2)


def test_what_an_ingredient_was_trained_on_is_not_scored(
    command: Command, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("variants", "tiny", "--n", "2", "--fold", "0", "--set", "optim.epochs=1")
    file = tiny / "configs" / "merges" / "two.yaml"
    file.write_text("merge_method: uniform\nmodels: [tiny_v0, tiny_v1]\n")
    command("merge", "two", "--fold", "0")
    path = paths.run_record("tiny", SCHEME, "two", 0)
    change_sealed(path, lambda r: r["merged_from"]["ingredients"][1].update(dataset="other"))
    told = command("merge", "two", "--fold", "0", "--holdout", "other", code=2)
    assert "tiny_v1, an ingredient of two, was trained on other: no leaked score" in told
    wanted = ["--model", "two", "--from", "tiny", "--data", "other", "--device", "cpu"]
    assert evaluate.main(wanted) == 2
    assert "tiny_v1, an ingredient of two: " in (said := capsys.readouterr().err)
    assert "nothing says which rows it saw" in said  # `other` has no fold file


@pytest.mark.usefixtures("three")
def test_what_a_choice_looked_at_is_said(command: Command, tiny: Path) -> None:
    """Merges of chosen merges have no score, and what is not in the table is named."""
    charts = tiny / "configs" / "merges"
    (charts / "again.yaml").write_text(
        "merge_method: task_arithmetic\nbase_model: start\nmodels: [soup, tiny_v0]\n"
        "parameters: {weight: 0.5}\n"
    )
    command("merge", "soup", "--fold", "0")
    told = command("merge", "again", "--fold", "0", "--holdout", "other")
    assert "no score of again: soup among its ingredients was itself chosen" in told
    assert "not in the table, nor in the ensemble: start (what the models started from" in told
    row = next(line for line in told.splitlines() if line.split()[:2] == ["again", "merge"])
    assert row.split()[2:5] == ["-", "-", "-"]
    table = pd.read_csv(paths.merge_report_dir("tiny", SCHEME) / "again.csv").set_index("model")
    assert table.loc["soup", "kind"] == "ingredient, chosen"
    assert table.loc["again", ["macro_f1", "macro_f1_at_0.5", "auc"]].isna().all()
    assert table["auc other"].between(0, 1).all()  # nothing was chosen there


@pytest.mark.usefixtures("three")
def test_an_upload_names_what_was_chosen(
    command: Command, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, object] = {}

    def push(_repo: str, files: dict[str, Path], card: str, _message: str) -> str:
        sent.update({name: file.read_bytes() for name, file in files.items()}, card=card)
        return "there"

    monkeypatch.setattr("src.cli.merge.push_files", push)
    assert "uploaded: there" in command("merge", "soup", "--fold", "0", "--push", "me/soup")
    chosen = read_record(paths.run_record("tiny", SCHEME, "soup", 0))["merged_from"]["chosen"]
    names = ", ".join(one["model"] for one in chosen["models"])
    assert f"- fold 0: uniform of {names}. Macro-F1 at 0.5 on its 24 held-out items" in str(
        sent["card"]
    )
    assert set(sent) == {"card", "fold_0.json", "fold_0.safetensors"}


def test_a_fold_too_small_for_halves_has_no_table(
    command: Command, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards: list[str] = []
    monkeypatch.setattr("src.cli.merge.push_files", lambda *sent: cards.append(sent[2]) or "up")
    for file in sorted((tiny / "input/tiny/train").rglob("*.png"))[2:-2]:
        file.unlink()  # two of either class: 1 + 1 in a fold
    options = ("--set", "optim.epochs=1", "--set", "optim.batch_size=2")
    command("variants", "tiny", "--n", "2", "--fold", "0", *options)
    (tiny / "configs/merges/two.yaml").write_text(
        "merge_method: uniform\nmodels: [tiny_v0, tiny_v1]\n"
    )
    words = ("merge", "two", "--fold", "0", "--no-check")
    told = command(*words, "--holdout", "other", "--push", "me/two")
    assert "fold 0 has too few groups for two halves: no table\n" in told
    assert "uploaded: up" in told
    assert "No score: too few groups." in cards[0]
    assert "24 items that none of them saw" in told
    assert [line.split()[0] for line in told.splitlines() if "macro-F1" in line] == [
        "tiny_v0", "tiny_v1", "two", "ensemble"
    ]  # fmt: skip
    assert command(*words).endswith("fold 0 has too few groups for two halves: no table\n")


def test_under_lodo_choices_are_said_to_have_seen_the_domain(
    command: Command, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tiny / "input" / "many"
    rng = np.random.default_rng(1)
    for i in range(48):
        folder = home / f"d{i % 3}" / ("fake" if i % 2 else "real")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(60 * (i % 2), 60 * (i % 2) + 190, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i:02d}.png"), cv2.resize(pixels, (20, 20)))
    words = ["--data", "many", "--device", "cpu", "--workers", "0", "--scheme", "lodo"]
    for extra in ([], ["--set", "seed=7", "--set", "init_seed=42", "--as", "twin"]):
        assert train.main(["--model", "tiny", *extra, *words, "--no-report"]) == 0
    (tiny / "configs/merges/left.yaml").write_text(GREEDY.replace("tiny_v0, tiny_v1, tiny_v2",
                                                                  "tiny, twin"))  # fmt: skip
    drawn: list[tuple] = []
    monkey = pytest.MonkeyPatch()
    monkey.setattr("src.cli.merge_table.plot_scatter", lambda *seen: drawn.append(seen) or "p")
    try:
        assert merge.main(["left", "--no-check", *words]) == 0
    finally:
        monkey.undo()
    told = capsys.readouterr().out
    assert "leave one domain out: at_0.5 and auc of what is not marked as chosen" in told
    table = pd.read_csv(paths.merge_report_dir("many", "lodo") / "left.csv").set_index("model")
    assert table.loc["left", "kind"] == "merge, chosen, saw half of the domain"
    assert table.loc["tiny", "kind"] == "ingredient"
    ((_, x, y, title, _),) = drawn
    assert x.endswith("(left out)")
    assert y.endswith("(each left out)")
    assert title == "left, many, leave one domain out"
