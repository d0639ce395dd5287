"""Plans by hand-made timings: whole folds, in time, the best model that can be of use."""

from dataclasses import replace

import pytest

from src.config import model_names, read_model
from src.errors import UserError
from src.training.candidates import CANDIDATES, Prospect, candidate_of, candidates_for
from src.training.proposal import DataSize, Option, propose
from src.training.rehearsal import StageTime, Timing

ROWS = DataSize(train=7000, test=2000, folds=5, reading=20.0)


def option(model: str, train: float, look: float, epochs: int = 9, least: float = 0.45) -> Option:
    """Return a model that trains and looks at an item in so many milliseconds."""
    stages = [StageTime(epochs, train / 1000)]
    timing = Timing(model, 128, 2, stages, look / 1000, "package", 1.0)
    return Option(Prospect(model, "large", least, ""), timing)


GOOD, SMALL = option("good", 27, 6), option("small", 3, 1)


def spent(rows: DataSize, member) -> float:
    """Return the seconds of a member's training, computed by hand."""
    (stage,), look = member.option.timing.stages, member.option.timing.look
    held, trained = rows.train / rows.folds, rows.train * (1 - 1 / rows.folds)
    epoch = trained * stage.seconds + held * look
    return member.folds * (10 + member.share * stage.epochs * epoch + 2 * held * look)


@pytest.mark.parametrize("minutes", [10, 20, 60, 120, 300, 600])
def test_a_plan_is_in_time_and_its_shares_are_what_the_minutes_hold(minutes):
    plan = propose(minutes, ROWS, [GOOD, SMALL])
    assert 0.5 * minutes <= plan.minutes <= minutes
    first = plan.members[0]
    assert 60 * first.minutes == pytest.approx(spent(ROWS, first) + ROWS.reading, rel=0.01)
    assert all(member.share >= 0.4 for member in plan.members)


def test_clips_are_looked_at_frame_by_frame_and_trained_on_one():
    still, clips = (replace(ROWS, frames=frames) for frames in (1.0, 16.0))
    assert GOOD.predict_seconds(clips, 1) == 16 * GOOD.predict_seconds(still, 1)
    more = GOOD.fold_seconds(clips, 1.0, 5) - GOOD.fold_seconds(still, 1.0, 5)
    assert more == pytest.approx((9 + 2) * 15 * 1400 * 0.006)


def test_a_good_model_on_a_fold_comes_before_a_small_one_on_all():
    plan = propose(20, ROWS, [GOOD, SMALL])
    assert [(m.option, m.folds) for m in plan.members] == [(GOOD, 1)]
    # 10 minutes hold less than its 4 epochs of 2.7 minutes.
    plan = propose(10, ROWS, [GOOD, SMALL])
    assert [(m.option, m.folds) for m in plan.members] == [(SMALL, 5)]
    folds = [propose(minutes, ROWS, [GOOD, SMALL]).members[0].folds for minutes in range(20, 90, 5)]
    assert folds == sorted(folds)
    assert folds[-1] == 5


def test_finished_folds_are_not_trained_again():
    some, last = (replace(GOOD, done=done) for done in ((0,), (0, 2, 3, 4)))
    assert propose(150, ROWS, [GOOD]).members[0].folds == 5
    assert propose(150, ROWS, [some]).members[0].folds == 4
    plan = propose(20, ROWS, [last])
    assert plan.members[0].folds == 1
    assert plan.predict > propose(20, ROWS, [GOOD]).predict  # five folds predict, not one


def test_in_a_night_others_join_with_all_their_epochs():
    plan = propose(480, ROWS, [GOOD, SMALL])
    assert [m.option for m in plan.members] == [GOOD, SMALL]
    assert plan.members[0].share == pytest.approx(1, rel=0.05)
    assert propose(150, ROWS, [GOOD, GOOD]).members[0].share > 1


def test_a_head_on_features_computed_once_is_given_no_more_than_it_can_use():
    timing = GOOD.timing._replace(stages=[StageTime(20, 0.0, once=0.012, stretches=False)])
    probe = Option(GOOD.candidate, timing)
    (member,) = propose(60, ROWS, [probe]).members
    assert (member.folds, member.share) == (5, 1)
    assert member.minutes < 20


def test_less_than_one_fold_can_use_is_refused_with_what_is_enough():
    with pytest.raises(
        UserError, match="less than one fold can use: of those timed here small is the fast"
    ) as error:
        propose(1.5, ROWS, [GOOD, SMALL])
    enough = int(str(error.value).rsplit("--minutes ", 1)[1])
    assert propose(enough, ROWS, [GOOD, SMALL]).members[0].option is SMALL


def test_candidates_are_configs_that_exist_and_each_kind_has_one_that_needs_nothing():
    for one in CANDIDATES:
        assert one.model in model_names()
        assert 0 < one.least <= 1
    for pictures in ("small", "large"):
        starts = [read_model(one.model).backbone.pretrained for one in candidates_for(pictures)]
        assert "none" in starts
    assert candidate_of("compact32", "large").least == 0.3
    assert candidate_of("timm:resnet18", "large").why == "not measured here"
