"""What every port `Studies` promises: on the fake always, on Optuna with SQLite and with a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from noria.backends.fake import FakeStudies
from noria.backends.optuna_search import OptunaStudies
from noria.errors import NotFound
from noria.ports import Studies
from noria.settings import Axis, SearchPlan

AXES = (
    Axis(name="batch", choices=(8, 16)),
    Axis(name="learning_rate", low=1e-5, high=1e-3, log=True),
    Axis(name="modules", choices=(["q_proj"], ["q_proj", "v_proj"])),
)
PLAN = SearchPlan(
    task="help", axes=AXES, sampler="random", pruning="none", trials=3,
    first={"batch": 8, "learning_rate": 2e-4, "modules": ["q_proj"]},
)  # fmt: skip


@pytest.fixture(params=["fake", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def studies(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Studies]:
    if request.param == "fake":
        yield FakeStudies()
        return
    url = "sqlite:///noria.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    home = OptunaStudies(url, tmp_path)
    # The server is that of the whole test run.
    for name in home.names():
        home.remove(name)
    yield home
    for name in home.names():
        home.remove(name)


@pytest.mark.slow
def test_a_study_from_its_first_trial_to_its_removal(studies: Studies) -> None:
    assert studies.names() == []
    study = studies.open("help-1", PLAN)
    first = study.ask()
    assert first is not None
    assert (first.number, first.state, first.values) == (0, "running", PLAN.first)
    assert not study.report(0, 4, 2.5)
    assert not study.report(0, 10, 2.0)
    study.tell(first.model_copy(update={"state": "complete", "value": 2.0, "seconds": 1.5, "wh": 0.25}))
    second = study.ask()
    assert second is not None
    assert all(axis.holds(second.values[axis.name]) for axis in AXES)
    study.tell(second.model_copy(update={"state": "lost"}))
    again = study.ask()
    assert again is not None
    assert (again.number, again.values) == (2, second.values)
    study.tell(again.model_copy(update={"state": "pruned", "seconds": 1.0}))
    third = study.ask()
    assert third is not None
    study.tell(third.model_copy(update={"state": "failed", "because": "out of memory"}))
    assert study.ask() is None
    made = studies.open("help-1").trials()
    assert [each.state for each in made] == ["complete", "lost", "pruned", "failed"]
    assert (made[0].value, made[0].curve, made[0].seconds, made[0].wh) == (2.0, (2.5, 2.0), 1.5, 0.25)
    assert (made[2].value, made[3].because) == (None, "out of memory")
    assert (study.once("told"), study.once("told")) == (True, False)
    assert studies.open("help-1", PLAN.model_copy(update={"trials": 4})).ask() is not None
    studies.open("help-2", PLAN)
    assert studies.names() == ["help-1", "help-2"]
    studies.remove("help-1")
    assert studies.names() == ["help-2"]
    for gone in (studies.open, studies.remove):
        with pytest.raises(NotFound, match="help-1"):
            gone("help-1")


def test_minutes_and_energy_are_those_of_all_trials(studies: Studies) -> None:
    budgets: tuple[dict[str, float], ...] = ({"minutes": 0.05}, {"energy_wh": 0.5})
    for number, budget in enumerate(budgets):
        study = studies.open(f"help-{number}", PLAN.model_copy(update={"trials": 50, **budget}))
        made = 0
        while trial := study.ask():
            study.tell(trial.model_copy(update={"state": "complete", "value": 1.0, "seconds": 1.0, "wh": 0.25}))
            made += 1
        assert made == (3, 2)[number]
