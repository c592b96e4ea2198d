"""Time limits of a run: steps that fit into them, by numbers worked out by hand."""

from datetime import datetime

import pytest

from configs.schema import TrainConfig
from configs.section import Start
from training.time_limits import Pace, describe_forecast, make_forecast, time_is_up

NOON = datetime(2026, 1, 1, 12)
SLOW = TrainConfig(max_minutes=2, min_steps=100, min_steps_minutes=5)
NONE: frozenset[str] = frozenset()
BOTH = frozenset({"masks.refinement", "background"})


def test_pace_is_the_mean_of_twelve_steps_after_three():
    pace = Pace()
    for seconds in (9.0, 9.0, 9.0, *[1.0] * 11):
        pace.step_done(seconds, BOTH)
        assert not pace.is_known
    pace.step_done(4.0, BOTH)
    assert pace.is_known
    assert pace.seconds_per_step == pytest.approx(15 / 12)
    pace.step_done(4.0, BOTH)  # replaces the first of the twelve
    assert pace.seconds_per_step == pytest.approx(18 / 12)
    pace.step_done(50.0, NONE)  # other parts train, so the mean starts anew
    assert not pace.is_known
    assert pace.waiting == NONE


@pytest.mark.parametrize(
    ("train", "step", "seconds", "per_step", "expected"),
    [
        # The run has taken 15 steps in 20 s.
        (TrainConfig(max_minutes=2), 15, 20, 0.5, (215, 100, 215)),
        (TrainConfig(max_minutes=2), 15, 20, 0.01, (3000, 29.85, 10015)),  # ends by its steps
        (SLOW, 15, 20, 0.5, (215, 100, 215)),  # min_steps fit into the time
        (SLOW, 15, 20, 2.0, (100, 170, 65)),  # 65 steps in 2 minutes; 100 take 190 s
        (SLOW, 15, 20, 10.0, (43, 280, 25)),  # 43 steps in 5 minutes
        (TrainConfig(max_minutes=2, min_steps=100), 15, 20, 10.0, (100, 850, 25)),
        (
            TrainConfig(max_minutes=6, min_steps=100, min_steps_minutes=5),
            15,
            20,
            10.0,
            (49, 340, 49),
        ),
        (TrainConfig(max_minutes=2, min_steps=9000), 15, 20, 2.0, (3000, 5970, 65)),
        (TrainConfig(max_minutes=2), 15, 200, 1.0, (15, 0, 15)),  # the time is already up
        (TrainConfig(), 15, 20, 1.0, (3000, 2985, None)),
    ],
)
def test_forecast(train, step, seconds, per_step, expected):
    forecast = make_forecast(train, 3000, step, seconds, per_step)
    assert forecast[:3] == (expected[0], pytest.approx(expected[1]), expected[2])


@pytest.mark.parametrize(
    ("step", "seconds", "is_up"),
    [(99, 119, False), (99, 120, False), (100, 119, False), (100, 120, True), (99, 299, False),
     (99, 300, True)],
)  # fmt: skip
def test_time_is_up(step, seconds, is_up):
    assert time_is_up(SLOW, step, seconds) == is_up


def test_time_without_a_minimum_or_a_limit():
    assert time_is_up(TrainConfig(max_minutes=2), 1, 120)
    assert not time_is_up(TrainConfig(min_steps=5), 1, 1e9)
    # max_minutes was raised above min_steps_minutes.
    raised = TrainConfig(max_minutes=6, min_steps=100, min_steps_minutes=5)
    assert not time_is_up(raised, 99, 320)
    assert time_is_up(raised, 99, 360)


def test_forecast_in_words():
    starts = [Start("masks.refinement", 1, 0.05), Start("background", 2, 0.1)]
    forecast = make_forecast(SLOW, 3000, 15, 20, 0.5)
    line = describe_forecast(forecast, SLOW, 0.5, 15, starts, NOON)
    assert line.startswith(
        "0.5 s a step: about 215 steps fit into train.max_minutes, 2; done at about 12:01; masks"
    )
    # The starts are at 5% and 10% of 215 steps; the first of them is already reached.
    assert line.endswith("; masks.refinement starts now; background starts after step 22")
    line = describe_forecast(make_forecast(SLOW, 3000, 15, 20, 2.0), SLOW, 2.0, 15, [], NOON)
    assert line.startswith(
        "2 s a step: only about 65 steps fit into train.max_minutes, 2; training goes on to about "
        "100 (at most 5 minutes); done at"
    )
    line = describe_forecast(make_forecast(SLOW, 3000, 15, 20, 10.0), SLOW, 10.0, 15, [], NOON)
    assert "goes on to about 43 (at most 5 minutes), fewer than train.min_steps, 100" in line
    # The number of steps ends this run, not the time.
    line = describe_forecast(make_forecast(SLOW, 80, 15, 20, 2.0), SLOW, 2.0, 15, [], NOON)
    assert "goes on to about 80 (at most 5 minutes); done at about 12:02" in line


@pytest.mark.parametrize(
    ("start", "place", "has_learned"),
    [
        (Start("background", 2, None), (100, 2, 0, None), False),
        (Start("background", 2, None), (101, 2, 1, None), True),
        (Start("background", 0, 0.1), (50, 1, 0, None), False),  # no number of steps is planned yet
        (Start("background", 0, 0.1), (22, 1, 0, 215), False),  # 21.5 rounds to 22
        (Start("background", 0, 0.1), (23, 1, 0, 215), True),
    ],
)
def test_what_has_learned(start, place, has_learned):
    assert start.has_learned(*place) == has_learned
