"""The table `tune`: spaces are checked against the recipe, and what is drawn lies within the bounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import Invalid
from noria.settings import Axis, LoraRecipe, RangeSettings, SearchPlan, TuneSettings, load

TOML = """[project]
name = "shop"
[engines.local]
kind = "llamacpp"
model = "none"
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
[tasks.help]
sources = ["faq"]
base = "none"
engine = "local"
recipe = { kind = "lora", rank = 8 }
[tasks.help.tune]
"""


def loaded(folder: Path, tune: str) -> tuple[Axis, ...]:
    (folder / "noria.toml").write_text(TOML + tune)
    task = load(folder / "noria.toml").tasks["help"]
    assert task.tune is not None
    return task.tune.axes(task.recipe, lambda field: field)


def test_the_booklets_space_has_the_bounds_that_it_means(tmp_path: Path) -> None:
    batch, epochs, rate = loaded(tmp_path, 'preset = "booklet"')
    assert batch.choices == (8, 16)
    assert epochs.grid() == (2, 3, 4)
    assert (rate.low, rate.high, rate.log) == (1e-5, 1e-3, True)
    assert (math.log(rate.low), math.log(rate.high)) == pytest.approx((-11.513, -6.908), abs=5e-4)


def test_what_stands_in_the_space_goes_before_the_preset(tmp_path: Path) -> None:
    axes = loaded(tmp_path, 'preset = "booklet"\nspace = { batch = [4], rank = { low = 4, high = 64, log = true } }')
    found = {axis.name: axis for axis in axes}
    assert found["batch"].choices == (4,)
    assert found["rank"].whole
    assert not found["learning_rate"].whole


@pytest.mark.parametrize(
    ("tune", "fact", "line"),
    [
        ("trials = 3", "the table 'tune' names nothing to search", 15),
        ("space = { learning_rat = [1e-3] }", "recipe 'lora' has no field 'learning_rat'", 16),
        ("space = { learning_rate = { low = 1e-5, high = 2.0 } }", "'space.learning_rate': recipe 'lora' refuses", 16),
        ("trials = 3\nspace.rank = [8, 512]", "'space.rank': recipe 'lora' refuses '512'", 17),
        ("space = { rank = { low = 4.5, high = 8 } }", "refuses '4.5': Input should be a valid integer", 16),
        ("space = { start = [\"base\"] }", "'space.start' cannot be searched", 16),
        ("space = { max_length = [128, 256] }", "'space.max_length' cannot be searched", 16),
        ("space = { modules = { low = 1, high = 2 } }", "'space.modules' is no number", 16),
        ("space = { rank = [] }", "'tasks.help.tune.space.rank'", 16),
        ("space = { epochs = { low = 3, high = 2 } }", "'low' must be below 'high'", 16),
        ("space = { epochs = { low = 1, high = 2, step = 0.3 } }", "0.3 does not lead from 1 to 2", 16),
        ("space = { epochs = { low = 0, high = 2, log = true } }", "a logarithmic scale has no 0", 16),
        ("space = { epochs = { low = 1, hi = 2 } }", "'tasks.help.tune.space.epochs.high' is missing", 16),
        ('sampler = "grd"', "'tasks.help.tune.sampler'", 16),
        ("trial = 3", "unknown key 'tasks.help.tune.trial'", 16),
    ],
)  # fmt: skip
def test_what_is_wrong_names_the_field_and_the_line(tmp_path: Path, tune: str, fact: str, line: int) -> None:
    with pytest.raises(Invalid) as caught:
        loaded(tmp_path, tune)
    assert fact in caught.value.fact
    assert caught.value.where == f"noria.toml:{line}"


@given(
    st.floats(1e-6, 1e-2), st.floats(1.1, 1e4), st.booleans(), st.integers(2, 9),
)  # fmt: skip
def test_a_grid_goes_from_bound_to_bound_and_no_further(low: float, factor: float, log: bool, points: int) -> None:
    axis = Axis(name="learning_rate", low=low, high=low * factor, log=log, points=points)
    values = [float(str(value)) for value in axis.grid()]
    assert len(values) == points
    assert values == sorted(values)
    assert values[0] == pytest.approx(low)
    assert values[-1] == pytest.approx(low * factor)


def test_a_grid_of_whole_numbers_has_each_once() -> None:
    assert Axis(name="rank", low=1, high=4, whole=True, points=10).grid() == (1, 2, 3, 4)
    grid: dict[str, Any] = {"task": "help", "axes": (Axis(name="a", choices=(1, 2)), Axis(name="b", choices=(1, 2, 3)))}
    assert SearchPlan(**grid, sampler="grid", trials=50).most == 6
    assert SearchPlan(**grid, sampler="grid", trials=5).most == 5
    assert SearchPlan(**grid, sampler="random", trials=50).most == 50


def test_lists_are_choices_too() -> None:
    tune = TuneSettings.model_validate({"space": {"modules": [["q_proj"], ["q_proj", "v_proj"]]}})
    [axis] = tune.axes(LoraRecipe(), lambda field: field)
    assert axis.holds(["q_proj"])
    assert not axis.holds(["v_proj"])
    assert RangeSettings(low=1, high=2).step is None
