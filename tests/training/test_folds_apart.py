"""The way out that tune.py offers where folds lie apart: training longer brings them together."""

from src.ensemble.align import align
from src.ensemble.scales import spread_of
from src.training.trainer import fit_fold


def test_longer_training_brings_the_folds_together(make_job):
    """Two epochs leave the folds apart, eight do not."""
    found = {}
    for model, epochs in (("brief", 2), ("long", 8)):
        for fold in range(3):
            optim = {"lr": 1e-3, "epochs": epochs, "ema_decay": None}
            assert fit_fold(make_job(fold, model=model, optim=optim))
        one = align("tiny", "s", [model])
        found[model] = spread_of(one.label, one.logit[:, 0], one.fold, one.group)
    brief, long = found["brief"], found["long"]
    assert brief.is_real
    assert not long.is_real
