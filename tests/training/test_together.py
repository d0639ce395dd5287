from types import SimpleNamespace

import pytest
import torch

from src.compute import ranks
from src.errors import UserError
from src.training import together


@pytest.mark.parametrize("differs", ["code", "config", "folds", "items", None])
def test_a_rank_with_other_code_config_folds_or_items_is_named(differs, monkeypatch):
    """Two ranks by what they tell each other; real ones: test_ranks, with another fold file."""

    def gathered(own):
        if not isinstance(own[1], dict):  # cards
            return [("rank 0 on a", ""), ("rank 1 on b", "")]
        other = own[1] | ({differs: "another"} if differs else {})
        return [("rank 0 on a", own[1]), ("rank 1 on b", other)]

    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "gathered", gathered)
    monkeypatch.setattr(together, "config_sha256", lambda _: "c")
    options = SimpleNamespace(chip=torch.device("cpu"))
    job = SimpleNamespace(
        options=options, config=None, folds_sha256="f", data_sha256="i", pseudo=None
    )
    if differs is None:
        together.check_alike(job)
        return
    with pytest.raises(UserError, match="rank 1 on b and rank 0 on a differ in ") as caught:
        together.check_alike(job)
    assert f"differ in {together.ALIKE[differs]}:" in str(caught.value)
