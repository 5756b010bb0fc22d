"""The stage `adapter` with the recipes that change weights: what is held out, what is refused, and going on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from tiny_llama import Heard, tiny_model

from noria import cycle, settings, wiring
from noria.errors import Invalid
from noria.ports import Platform, Progress, Trainer
from noria.settings import WeightRecipe
from noria.training.weights import held_out
from noria.types import TrainingJob

FILE = """
[project]
name = "tiny"
[engines.local]
kind = "llamacpp"
model = "tiny.gguf"
context = 512
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
map = { question = "question", answer = "answer" }
[tasks.desk]
sources = ["faq"]
base = "tiny.gguf"
engine = "local"
recipe = RECIPE
"""
LORA = '{ kind = "lora", rank = 2, epochs = 2, batch = 2, learning_rate = 1e-2, max_length = 512, validation = 0.2 }'
SUBJECTS = ("ships", "bakers", "winter", "violins", "copper", "gardens", "letters", "rivers", "chess", "lamps")


@given(st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=40), st.floats(0.01, 0.5))
def test_some_conversations_are_held_out_never_all_and_the_same_ones_later(names: list[str], share: float) -> None:
    found = held_out(names, share)
    if len(set(names)) > 1:
        assert 0 < len(found) < len(set(names))
    assert held_out(list(reversed(names)), share) == found
    assert held_out(names, 0.0) == set()


def project(folder: Path, recipe: str, rows: int) -> Platform:
    folder.mkdir()
    tiny_model(folder / "tiny.gguf")
    lines = [f"What of {subject}?,All about {subject} is in the book of {subject}." for subject in SUBJECTS[:rows]]
    (folder / "faq.csv").write_text("\n".join(["question,answer", *lines]) + "\n")
    (folder / "noria.toml").write_text(FILE.replace("RECIPE", recipe))
    platform = wiring.open_platform(settings.load(folder / "noria.toml"))
    return replace(platform, tracking=Shown())


class Shown:
    """A `Tracking` that keeps the curves it was told."""

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {}

    def log(
        self, experiment: str, name: str, run: Mapping[str, JsonValue], curves: Mapping[str, Sequence[float]],
        files: Sequence[Path], parent: str | None = None,
    ) -> str:  # fmt: skip
        self.curves = {name: list(values) for name, values in curves.items()}
        return "run"


class Often:
    """A `Trainer` that writes a checkpoint after each step, and one that is interrupted where it is told so."""

    def __init__(self, trainer: Trainer, interrupt: int = 0) -> None:
        self.trainer = trainer
        self.left = [interrupt] if interrupt else []
        self.began: list[float] = []

    def tokenizer(self, model: Path) -> Path:
        return self.trainer.tokenizer(model)

    def check(self, model: Path, recipe: WeightRecipe) -> None:
        self.trainer.check(model, recipe)

    def train(self, job: TrainingJob, progress: Progress) -> dict[str, object]:
        heard = Watched(self.left)
        try:
            return dict(self.trainer.train(replace(job, checkpoint_steps=1), heard))
        finally:
            self.began.append(next((done for done in heard.done if done), 0.0))


class Watched:
    """A `Progress` at which a person presses Ctrl-C."""

    def __init__(self, left: list[int]) -> None:
        self.left = left
        self.done: list[float] = []

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        self.done.append(done)
        if self.left and done == self.left[0]:
            self.left.pop()
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_stage_that_is_interrupted_goes_on_to_the_same_adapter(tmp_path: Path) -> None:
    first = project(tmp_path / "one", LORA, len(SUBJECTS))
    whole = cycle.turn(first, None, Heard(), until="adapter").artifact("adapter")
    second = project(tmp_path / "two", LORA, len(SUBJECTS))
    often = Often(second.trainer, interrupt=4)
    platform = replace(second, trainer=often)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        cycle.turn(platform, None, Heard(), until="adapter")
    again = cycle.turn(platform, None, Heard(), until="adapter").artifact("adapter")
    assert again.ref == whole.ref
    assert often.began[1] >= 4
    assert "curves" not in again.meta
    assert isinstance(platform.tracking, Shown)
    shown = platform.tracking.curves
    assert {"loss", "learning_rate", "tokens_per_s", "memory_mb", "validation_loss"} <= shown.keys()
    assert len(shown["loss"]) == len(shown["learning_rate"]) == again.meta["steps"]
    assert again.meta["best_step"]
    assert not list((tmp_path / "two" / ".noria" / "training").iterdir())


@pytest.mark.slow
def test_what_cannot_be_learned_registers_nothing(tmp_path: Path) -> None:
    few = project(tmp_path / "few", LORA.replace("validation = 0.2", "validation = 0.0"), 4)
    with pytest.raises(Invalid, match=r"'desk' has only [123] rows? to learn from, 4 are the least"):
        cycle.turn(few, None, Heard(), until="adapter")
    assert not (tmp_path / "few" / "lake" / "adapter").exists()
    for recipe, said in (
        ('{ kind = "qlora", preset = "booklet" }', "'qlora' needs a CUDA device"),
        ('{ kind = "lora", max_length = 1024 }', "max_length 1024 is more than the 512 tokens"),
    ):
        platform = project(tmp_path / said[:6].strip("'"), recipe, 4)
        with pytest.raises(Invalid, match=said):
            cycle.turn(platform, None, Heard(), until="adapter")
        assert not platform.runs.cycles("desk", 5)


@pytest.mark.slow
def test_without_pairs_there_is_nothing_to_prefer(tmp_path: Path) -> None:
    platform = project(tmp_path / "pairs", '{ kind = "dpo", max_length = 512 }', len(SUBJECTS))
    with pytest.raises(Invalid, match="'desk' has no preference pairs to learn from"):
        cycle.turn(platform, None, Heard(), until="adapter")
