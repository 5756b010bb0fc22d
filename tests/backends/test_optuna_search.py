"""Studies in real Optuna and HyperOpt, on objectives that cost nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noria.backends.optuna_search import OptunaStudies
from noria.settings import Axis, SearchPlan
from noria.stores import Study
from noria.types import Trial

RATE = Axis(name="learning_rate", low=1e-5, high=1e-3, log=True)
BATCH = Axis(name="batch", choices=(8, 16), whole=True)
EPOCHS = Axis(name="epochs", low=2, high=4, step=1)
RANK = Axis(name="rank", low=1, high=64, log=True, whole=True)
MODULES = Axis(name="modules", choices=(["q_proj"], ["q_proj", "v_proj"]))
AXES = (BATCH, EPOCHS, MODULES, RANK, RATE)
SAMPLERS = ("tpe", "random", "grid", "hyperopt-tpe")


def plan(*axes: Axis, **more: Any) -> SearchPlan:
    return SearchPlan(task="help", axes=axes or AXES, **{"pruning": "none", **more})


def loss(values: dict[str, Any]) -> float:
    """Least at a rate of 3e-4 and a batch of 16."""
    return float(abs(math.log10(values["learning_rate"] / 3e-4)) + (values.get("batch", 16) != 16))


def search(study: Study, objective: Callable[[dict[str, Any]], float] = loss) -> list[Trial]:
    while trial := study.ask():
        found = objective(trial.values)
        study.tell(trial.model_copy(update={"state": "complete", "value": found, "seconds": 1.0}))
    return study.trials()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_keeps_to_the_space_and_to_the_budget(tmp_path: Path, sampler: str) -> None:
    study = OptunaStudies("sqlite:///noria.db", tmp_path).open("help-1", plan(sampler=sampler, trials=14))
    made = search(study)
    assert [each.number for each in made] == list(range(14))
    assert {each.state for each in made} == {"complete"}
    for trial in made:
        assert all(axis.holds(trial.values[axis.name]) for axis in AXES), trial
        assert isinstance(trial.values["rank"], int)
    assert (tmp_path / "noria-studies.db").is_file()
