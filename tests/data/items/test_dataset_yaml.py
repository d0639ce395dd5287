"""dataset.yaml is read strictly."""

import pytest

from src.data.items.dataset_yaml import DatasetConfig, SampleConfig, read_dataset_yaml
from src.errors import UserError


def read(tmp_path, text: str) -> DatasetConfig:
    (tmp_path / "dataset.yaml").write_text(text)
    return read_dataset_yaml(tmp_path)


def test_absent_or_empty_is_the_default(tmp_path):
    assert read_dataset_yaml(tmp_path) == DatasetConfig()
    assert read(tmp_path, "# nothing yet\n") == DatasetConfig()


def test_words_stay_words(tmp_path):
    # YAML 1.1 would read True, False and 7.
    config = read(tmp_path, "labels: {no: 0, on: 1, 007: 1}\nn_folds: 3\n")
    assert config.labels == {"no": 0, "on": 1, "007": 1}
    assert config.n_folds == 3


def test_labels_by_class(tmp_path):
    config = read(tmp_path, "labels: {real: [live, bonafide], fake: [spoof]}\n")
    assert config.labels == {"live": 0, "bonafide": 0, "spoof": 1}


def test_submission(tmp_path):
    config = read(tmp_path, "submission: {file: s.csv, label_names: [R, F]}\n")
    assert config.submission == SampleConfig(file="s.csv", label_names=("R", "F"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("lables: {a: 0, b: 1}", "unknown key .*'lables'; did you mean 'labels'"),
        ("group: original", "'group'.*'group_column'"),
        (
            "rules: {single_modle: yes}",
            r"'rules\.single_modle'.*did you mean 'rules\.single_model'",
        ),
        ("rules: {max_files: 0}", "rules.max_files must be >= 1 .found '0'"),
        ("rules: {tta: perhaps}", "rules.tta must be true or false .found 'perhaps'"),
        ("rules: [single_model]", r"rules must be a mapping .*found \['single_model'\]"),
        ("submission: {label_column: x}", r"'submission\.label_column'"),
        ("domain_from: easy", r"domain_from has no group; put what is the domain into \(\)"),
        ("domain_from: (easy", "domain_from is no regular expression: missing"),
        ("domain_from: (a)\ndomain_column: b", "both say what the domain is; keep one"),
        ("output: probs", "output must be 'label', 'prob' or 'rank'.*did you mean 'prob'"),
        ("submission: {fil: x}", r"'submission\.fil'.*did you mean 'submission\.file'"),
        ("seed: 1\nseed: 2", "key 'seed' stands twice"),
        ("labels: {a: 0, a: 1}", "key 'a' stands twice"),
        ("labels: {a: 0, b: 2}", "labels: b is '2', want 0"),
        ("labels: {real: [a, [b]], fake: [c]}", r"labels: real: \['b'\] is no word"),
        ("labels: {real: [a], fake: [a]}", "labels: fake: 'a' is no word, or stands there twice"),
        ("root: [a, b]", "root: want {from: START_OF_PATHS, to: FOLDER}"),
        ("root: {from: [a], to: b}", "root must be text"),
        ("root: {from: a, to: ../b}", "root.to is '../b', want a folder inside"),
        ("labels: {a: 0, b: 0}", "a word for 0 .real. and one for 1"),
        ("labels: real", "labels: want e.g.*found 'real'"),
        ("n_folds: 1", "n_folds must be >= 2 .found '1'"),
        ("seed: x", "seed must be a whole number .found 'x'"),
        ("extra: other", "extra must be a list .found 'other'"),
        ("extra: [a, a]", "extra: 'a' stands there twice"),
        ("subfolders: groups", "subfolders must be 'group', 'domain'.*did you mean 'group'"),
        ("submission: {label_names: [A]}", r"label_names must hold more values .found \['A'\]"),
        ("id_column: [a]", r"id_column must be text .found \['a'\]"),
        ("- a", "must be a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, match):
    with pytest.raises(UserError, match=rf"(?s)dataset\.yaml.*{match}|{match}") as error:
        read(tmp_path, text)
    assert str(tmp_path / "dataset.yaml") in str(error.value)


def test_the_other_suffix_is_not_passed_over(tmp_path):
    (tmp_path / "dataset.yml").write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"dataset\.yml: call it dataset\.yaml"):
        read_dataset_yaml(tmp_path)
