"""The training loop on one number: when it stops, what it keeps, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import JsonValue

from noria.backends.peft_job import Row, WorkerJob
from noria.backends.peft_loop import Loop
from noria.backends.peft_meter import Course
from noria.backends.peft_model import Learner
from noria.backends.peft_packs import Group, Pack
from noria.backends.peft_ranks import Ranks
from noria.backends.peft_state import FILE
from noria.errors import Invalid
from noria.settings import LoraRecipe

ROWS = {0: Row((1,), (1,)), 1: Row((2,), (2,))}
STEPS = 40


class Number(torch.nn.Module):  # type: ignore[misc]
    """The number that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(1))


class Towards:
    """A `Loss`: row 0 wants the number to be 1, row 1 wants it to be 0; infinite where it is told so."""

    def __init__(self, number: Number, worth: float = 1.0) -> None:
        self.number = number
        self.worth = worth

    def groups(self, numbers: Sequence[int]) -> list[Group]:
        return [(number,) for number in numbers]

    def weight(self, numbers: Sequence[int]) -> int:
        return len(numbers)

    def total(self, pack: Pack) -> torch.Tensor:
        wanted = torch.tensor([1.0 - number for number in pack.rows])
        return ((self.number.value - wanted) ** 2).sum() * self.worth


def learned(
    job: WorkerJob, worth: float = 1.0, heard: list[dict[str, JsonValue]] | None = None
) -> tuple[Course, Number]:
    number = Number()
    causal = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=1))
    learner = Learner(number, causal, 0, torch.device("cpu"), None, "toy")
    said: list[dict[str, JsonValue]] = heard if heard is not None else []
    course = Loop(job, learner, Towards(number, worth), ROWS, Ranks(), said.append).run()
    return course, number


def job_of(folder: Path, validation: tuple[int, ...] = (), patience: int = 3) -> WorkerJob:
    recipe = LoraRecipe(learning_rate=0.05, patience=patience)
    model = folder / "model"
    model.write_text("")
    return WorkerJob(
        mode="train", model=model, cache=folder, plan=((0,),) * STEPS, validation=validation, recipe=recipe,
        state=folder / "state", checkpoint_steps=1, stop=folder / "stop",
    )  # fmt: skip


def test_it_learns_and_says_what_it_knows_at_each_step(tmp_path: Path) -> None:
    heard: list[dict[str, JsonValue]] = []
    course, number = learned(job_of(tmp_path), heard=heard)
    assert len(course.losses) == len(course.rates) == len(course.memory_mb) == STEPS
    assert number.value.item() == pytest.approx(1.0, abs=0.2)
    assert {"step", "total", "loss", "learning_rate", "tokens_per_s", "peak_mb", "joules"} == set(heard[0])
    assert course.best is None


def test_it_stops_when_the_validation_gains_no_more_and_keeps_the_best(tmp_path: Path) -> None:
    course, number = learned(job_of(tmp_path, validation=(1,), patience=2))
    assert [step for step, _ in course.validation] == [4, 8, 12]
    assert course.best == course.validation[0]
    assert len(course.losses) == 12
    assert number.value.item() ** 2 == pytest.approx(course.validation[0][1], abs=1e-5)


def test_it_goes_to_the_end_while_the_validation_gains(tmp_path: Path) -> None:
    course, _ = learned(job_of(tmp_path, validation=(0,)))
    assert [step for step, _ in course.validation] == list(range(4, STEPS + 1, 4))


def test_a_checkpoint_goes_on_to_the_same_numbers_and_not_for_another_job(tmp_path: Path) -> None:
    job = job_of(tmp_path, validation=(1,), patience=9)
    whole, at_end = learned(job)
    # What the last checkpoint holds is the state before the last step.
    again, resumed = learned(job)
    same = ("losses", "rates", "validation")
    assert again.model_dump(include=set(same)) == whole.model_dump(include=set(same))
    assert torch.equal(resumed.value, at_end.value)
    assert (tmp_path / "state" / FILE).is_file()
    other = job.model_copy(update={"plan": job.plan[:10]})
    assert len(learned(other)[0].losses) == 10


def test_a_stop_that_is_wanted_ends_it_at_the_next_step(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    (tmp_path / "stop").touch()
    assert len(learned(job)[0].losses) == 1


def test_a_loss_that_is_no_number_is_refused_at_its_step(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="the loss of step 1 is not a number") as caught:
        learned(job_of(tmp_path), worth=float("inf"))
    assert "smaller learning_rate than 0.05" in caught.value.hint
    assert not (tmp_path / "state").exists()


def test_a_full_disk_ends_it_at_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / f"{FILE}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        learned(job_of(tmp_path))
    assert caught.value.errno == 28


def test_a_checkpoint_is_no_pickle(tmp_path: Path) -> None:
    learned(job_of(tmp_path))
    file = (tmp_path / "state" / FILE).read_bytes()
    header = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
    assert set(header) == {"__metadata__", "weight/value", "exp_avg/value", "exp_avg_sq/value"}
