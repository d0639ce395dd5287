"""Uploads: what is sent, and what is said where that fails."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from src.errors import UserError
from src.models.hub import push_files


@pytest.fixture
def sent(monkeypatch):
    calls = []

    class Api:
        def create_repo(self, repo, *, private, exist_ok):
            calls.append((repo, private, exist_ok))

        def create_commit(self, repo, operations, *, commit_message):
            names = {one.path_in_repo: one.path_or_fileobj for one in operations}
            calls.append((repo, names, commit_message))
            return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return calls


def test_one_commit_to_a_private_repository(sent, tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"abc")
    url = push_files("me/soup", {"fold_0.safetensors": weights}, "# soup\n", "first")
    assert url == "https://hub/commit/1"
    (made, committed) = sent
    assert made == ("me/soup", True, True)
    assert committed[1] == {"fold_0.safetensors": str(weights), "README.md": b"# soup\n"}


def test_what_the_hub_says_is_passed_on(sent, monkeypatch, tmp_path):
    def refuse(*_args, **_rest):
        raise PermissionError("401: no token")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=r"cannot be reached \(PermissionError: 401: no token\)"):
        push_files("me/soup", {}, "", "")
    with pytest.raises(UserError, match="want USER/NAME"):
        push_files("soup", {}, "", "")
