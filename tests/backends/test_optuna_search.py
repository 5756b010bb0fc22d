"""Studies in real Optuna and HyperOpt, on objectives that cost nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noria.backends.optuna_search import OptunaStudies
from noria.errors import Unavailable
from noria.settings import Axis, LoraRecipe, SearchPlan, TuneSettings
from noria.stores import Study
from noria.types import Trial

pytestmark = pytest.mark.slow

RATE = Axis(name="learning_rate", low=1e-5, high=1e-3, log=True)
BATCH = Axis(name="batch", choices=(8, 16))
EPOCHS = Axis(name="epochs", low=2, high=4, step=1)
RANK = Axis(name="rank", low=1, high=64, log=True, whole=True)
MODULES = Axis(name="modules", choices=(["q_proj"], ["q_proj", "v_proj"]))
AXES = (BATCH, EPOCHS, MODULES, RANK, RATE)
SAMPLERS = ("tpe", "random", "grid", "hyperopt-tpe")


def plan(*axes: Axis, **more: Any) -> SearchPlan:
    return SearchPlan(task="help", axes=axes or AXES, **{"pruning": "none", **more})


def loss(values: dict[str, Any]) -> float:
    """Least at a rate of 3e-4 and a batch of 16."""
    return abs(math.log10(float(values["learning_rate"]) / 3e-4)) + float(values.get("batch", 16) != 16)


def search(study: Study, objective: Callable[[dict[str, Any]], float] = loss) -> list[Trial]:
    while trial := study.ask():
        found = objective(trial.values)
        study.tell(trial.model_copy(update={"state": "complete", "value": found, "seconds": 1.0}))
    return study.trials()


@pytest.fixture
def studies(tmp_path: Path) -> OptunaStudies:
    return OptunaStudies("sqlite:///noria.db", tmp_path, heartbeat=1, grace=2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_keeps_to_the_space_and_to_the_budget(studies: OptunaStudies, sampler: str) -> None:
    made = search(studies.open("help-1", plan(sampler=sampler, trials=8)))
    assert [each.number for each in made] == list(range(8))
    assert {each.state for each in made} == {"complete"}
    for trial in made:
        assert all(axis.holds(trial.values[axis.name]) for axis in AXES), trial
        assert isinstance(trial.values["rank"], int)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_booklets_rates_are_drawn_between_its_bounds(studies: OptunaStudies, sampler: str) -> None:
    """Its own code would draw up to 2.48e-3, and nothing below 1.67e-5."""
    axes = TuneSettings(preset="booklet").axes(LoraRecipe(), lambda field: field)
    made = search(studies.open("help-1", plan(*axes, sampler=sampler, trials=18)))
    rates = [float(str(each.values["learning_rate"])) for each in made]
    assert len(rates) == 18
    assert 1e-5 <= min(rates) < 4e-5
    assert 2.5e-4 < max(rates) <= 1e-3
    assert {each.values["batch"] for each in made} == {8, 16}
    assert {each.values["epochs"] for each in made} == {2, 3, 4}


def test_a_grid_is_gone_through_once(studies: OptunaStudies) -> None:
    made = search(studies.open("help-1", plan(BATCH, EPOCHS, sampler="grid", trials=50)), lambda values: 1.0)
    points = [(each.values["batch"], each.values["epochs"]) for each in made]
    assert sorted(points) == [(batch, epochs) for batch in (8, 16) for epochs in (2, 3, 4)]


def test_what_the_space_holds_of_the_recipe_is_tried_first_and_the_rest_is_drawn(studies: OptunaStudies) -> None:
    """The usual LoRA has one epoch, the booklet two at the least."""
    study = studies.open("help-1", plan(BATCH, EPOCHS, RATE, first={"batch": 16, "learning_rate": 2e-4}, trials=1))
    [made] = search(study)
    assert (made.values["batch"], made.values["learning_rate"]) == (16, 2e-4)
    assert made.values["epochs"] in (2, 3, 4)


@pytest.mark.parametrize("sampler", ["tpe", "hyperopt-tpe"])
def test_the_draws_follow_what_was_good_and_come_again(tmp_path: Path, sampler: str) -> None:
    def drawn(folder: str, best: float) -> list[float]:
        home = tmp_path / folder
        home.mkdir()
        study = OptunaStudies("sqlite:///noria.db", home).open("help-1", plan(RATE, sampler=sampler, trials=16))
        made = search(study, lambda values: abs(math.log10(values["learning_rate"] / best)))
        return [math.log10(float(str(each.values["learning_rate"]))) for each in made]

    low, high, again = drawn("low", 1e-5), drawn("high", 1e-3), drawn("again", 1e-5)
    assert low == again
    assert low[:4] == high[:4]
    assert sum(low[6:]) < sum(high[6:]) - 1.0


@pytest.mark.parametrize("pruning", ["median", "halving", "none"])
def test_what_falls_behind_is_pruned(studies: OptunaStudies, pruning: str) -> None:
    study = studies.open("help-1", plan(RATE, pruning=pruning, sampler="random", trials=8))
    measured = []
    while trial := study.ask():
        value, steps = (0.1, 0) if trial.number < 5 else (5.0, 0)
        pruned = False
        while steps < 10 and not pruned:
            steps += 1
            pruned = study.report(trial.number, steps, value + 1 / steps)
        state = "pruned" if pruned else "complete"
        study.tell(trial.model_copy(update={"state": state, "value": None if pruned else value}))
        measured.append(steps)
    states = [each.state for each in study.trials()]
    assert measured[0] == 10
    assert states[5:] == (["complete"] if pruning == "none" else ["pruned"]) * 3
    assert [len(each.curve) for each in study.trials()] == measured


def test_a_trial_without_a_sign_of_life_is_made_again_and_given_up_in_the_end(studies: OptunaStudies) -> None:
    import time

    study = studies.open("help-1", plan(RATE, trials=1))
    values = []
    for _ in range(3):
        trial = study.ask()
        assert trial is not None
        values.append(trial.values)
        study._begun[trial.number].ended.set()
        time.sleep(3.5)
    assert study.ask() is None
    assert [each.state for each in study.trials()] == ["lost", "lost", "failed"]
    assert study.trials()[-1].because == "its process was killed 3 times"
    assert values == values[:1] * 3


def test_a_process_that_was_killed_while_it_drew_leaves_nothing_under_way(studies: OptunaStudies) -> None:
    study = studies.open("help-1", plan(RATE, trials=1, first={"learning_rate": 2e-4}))
    with pytest.warns(UserWarning, match="Heartbeat"):
        study._study.ask()
    trial = study.ask()
    assert trial is not None
    assert (trial.number, trial.values) == (1, {"learning_rate": 2e-4})
    study.tell(trial.model_copy(update={"state": "complete", "value": 1.0}))
    assert study.ask() is None
    assert [each.state for each in study.trials()] == ["lost", "complete"]


def test_what_made_the_difference_is_said_of_enough_trials(studies: OptunaStudies) -> None:
    study = studies.open("help-1", plan(RATE, RANK, sampler="random", trials=12))
    assert study.importance() == {}
    search(study)
    found = study.importance()
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-3)
    assert list(found) == ["learning_rate", "rank"]


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached") as caught:
        OptunaStudies("postgresql+psycopg://noria:secret@127.0.0.1:1/noria", tmp_path).names()
    assert "secret" not in str(caught.value)
