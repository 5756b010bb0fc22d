"""Every recipe that changes weights, on a tiny model in real child processes, against the real engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tiny_llama import ANSWER, PROMPT, Heard, digests, tiny_model, write_features

from noria import adapters
from noria.backends import gguf_weights, peft_trainer
from noria.backends.llamacpp import LlamaCpp
from noria.backends.peft_model import check_four_bit, four_bit
from noria.backends.peft_state import FILE
from noria.backends.peft_trainer import PeftTrainer
from noria.errors import Invalid, NotFound, Unavailable
from noria.settings import DpoRecipe, EngineSettings, FullRecipe, LoraRecipe, QloraRecipe, WeightRecipe
from noria.types import Message, Ref, TrainingJob

pytestmark = pytest.mark.slow
ROWS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lengths = [PROMPT + ANSWER + 3 * number for number in range(ROWS)]
    return write_features(tmp_path_factory.mktemp("features"), lengths)


def job_of(
    model: Path, features: Path, out: Path, recipe: WeightRecipe, plan: Sequence[Sequence[int]] = ((0, 1, 2), (3, 4, 5))
) -> TrainingJob:
    return TrainingJob(model=model, features=features, plan=list(plan) * 8, start=None, recipe=recipe, out=out)


class Killer(Heard):
    """Kills the worker when it has done so many steps."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        super().update(label, done, total, note)
        if done == self.at:
            for child in psutil.Process().children():
                if "noria.backends.peft_worker" in child.cmdline():
                    child.kill()


def test_a_run_that_is_killed_at_several_steps_comes_to_the_same_bytes(
    model: Path, cache: Path, features: Path, tmp_path: Path
) -> None:
    trainer = PeftTrainer(cache, "cpu")
    recipe = LoraRecipe(rank=4, dropout=0.2, layers=1, learning_rate=1e-2, patience=20)
    whole = replace(job_of(model, features, tmp_path / "whole", recipe), validation=[6, 7])
    told = trainer.train(whole, Heard())
    state = tmp_path / "state"
    broken = replace(whole, out=tmp_path / "broken", state=state, checkpoint_steps=1)
    for at in (2, 15):
        killer = Killer(at)
        with pytest.raises(Unavailable, match="killed by signal 9"):
            trainer.train(broken, killer)
        assert (state / FILE).is_file()
    heard = Heard()
    again = trainer.train(broken, heard)
    assert heard.updates[1][1] >= 14
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")
    assert again["losses"] == told["losses"]
    assert again["validation"] == told["validation"]
    assert not state.exists()


@pytest.mark.long
def test_a_search_may_stop_a_run_by_its_validation(model: Path, cache: Path, features: Path, tmp_path: Path) -> None:
    asked: list[tuple[int, float]] = []

    def stop(step: int, loss: float) -> bool:
        asked.append((step, loss))
        return len(asked) == 2

    recipe = LoraRecipe(rank=2, learning_rate=1e-3, patience=20)
    plan = ((0, 1), (2, 3)) * 100
    job = replace(job_of(model, features, tmp_path / "out", recipe, plan), validation=[6, 7], stop=stop)
    told = PeftTrainer(cache, "cpu").train(job, Heard())
    assert told["validation"][:2] == [list(pair) for pair in asked[:2]]  # type: ignore[index]
    assert int(str(told["steps"])) < int(str(told["planned_steps"])) == 1600


def test_a_whole_model_is_trained_and_served_by_a_server_of_its_own(
    model: Path, cache: Path, features: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recipe = FullRecipe(learning_rate=3e-3, precision="f32")
    told = PeftTrainer(cache, "cpu").train(job_of(model, features, out, recipe), Heard())
    assert float(str(told["last_loss"])) < 0.9 * float(str(told["first_loss"]))
    assert adapters.kind_of(out) == "model"
    whole, unknown = (Ref(kind="adapter", name=name, digest="0" * 16) for name in ("tiny", "other"))
    settings = EngineSettings(kind="llamacpp", model=str(model), slots=1, context=256, threads=1)
    engine = LlamaCpp().start(settings, {whole: out}, tmp_path / "log")
    try:
        assert adapters.endpoint(engine, None) == engine.endpoint
        assert adapters.endpoint(engine, whole).url != engine.endpoint.url
        assert engine.extra(whole) == {}
        with pytest.raises(NotFound):
            engine.extra(unknown)
        probes = json.loads((out / "probes.json").read_text())
        assert any(probe["token"] != probe.get("base_token") for probe in probes)
        for probe in probes[:20]:
            token, logprob = engine.next_token(probe["prefix"], whole)
            assert token == probe["token"]
            assert logprob == pytest.approx(probe["logprob"], abs=0.05)
            token, logprob = engine.next_token(probe["prefix"], None)
            assert token == probe["base_token"]
            assert logprob == pytest.approx(probe["base_logprob"], abs=0.05)
        asked = [Message(role="user", content="th")]
        assert engine.answer(asked, whole, 8, []).text != engine.answer(asked, None, 8, []).text
        engine._models[whole].process.kill()
        engine._models[whole].process.wait()
        assert not engine.alive()
    finally:
        engine.close()
    goes_on = replace(job_of(model, features, tmp_path / "next", recipe), start=out)
    next_told = PeftTrainer(cache, "cpu").train(goes_on, Heard())
    assert float(str(next_told["first_loss"])) < 0.3 * float(str(told["first_loss"]))


def test_preferences_are_learned_against_the_start_as_reference(
    model: Path, cache: Path, features: Path, tmp_path: Path
) -> None:
    recipe = DpoRecipe(rank=8, learning_rate=1e-2, beta=0.5)
    told = PeftTrainer(cache, "cpu").train(
        job_of(model, features, tmp_path / "out", recipe, ((0, 1, 2, 3), (4, 5, 6, 7))), Heard()
    )
    # At the start the model is its own reference: each pair costs log 2.
    assert float(str(told["first_loss"])) == pytest.approx(0.693147, abs=1e-4)
    assert float(str(told["last_loss"])) < 0.2
    assert (tmp_path / "out" / "adapter.gguf").is_file()


def test_two_processes_have_the_loss_curve_of_one(
    model: Path, cache: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the processor has bfloat16 the curves differ by its rounding, which grows from step to step.
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    recipe = LoraRecipe(rank=4, learning_rate=1e-2, patience=20)
    one = replace(job_of(model, features, tmp_path / "one", recipe), validation=[6, 7])
    alone = PeftTrainer(cache, "cpu").train(one, Heard())
    both = PeftTrainer(cache, "cpu:2").train(replace(one, out=tmp_path / "two"), Heard())
    assert both["losses"] == pytest.approx(alone["losses"], abs=2e-4)
    curves = [json.loads((tmp_path / name / "loss.json").read_text())["validation"] for name in ("one", "two")]
    assert [each["loss"] for each in curves[1]] == pytest.approx([each["loss"] for each in curves[0]], abs=2e-4)


@pytest.mark.parametrize(
    ("recipe", "plan"),
    [
        # One process has more rows than the other, or all: both must go through the layers equally often.
        (LoraRecipe(rank=4, layers=1, learning_rate=1e-2, patience=20), ((0, 1, 2), (3, 4, 5), (0,))),
        pytest.param(
            DpoRecipe(rank=4, learning_rate=1e-2, patience=20), ((0, 1, 2, 3), (4, 5)), marks=pytest.mark.long
        ),
    ],
    ids=["lora", "dpo"],
)
def test_two_processes_that_spread_the_base_learn_the_same(
    model: Path, cache: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    recipe: LoraRecipe | DpoRecipe, plan: tuple[tuple[int, ...], ...],
) -> None:  # fmt: skip
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    one = replace(job_of(model, features, tmp_path / "one", recipe, plan), validation=[6, 7])
    alone = PeftTrainer(cache, "cpu").train(one, Heard())
    both = PeftTrainer(cache, "cpu:2", sharded=True).train(replace(one, out=tmp_path / "two"), Heard())
    assert both["losses"] == pytest.approx(alone["losses"], abs=2e-4)
    told = [json.loads((tmp_path / name / "loss.json").read_text())["validation"] for name in ("one", "two")]
    assert [each["loss"] for each in told[1]] == pytest.approx([each["loss"] for each in told[0]], abs=2e-4)
    probes = [json.loads((tmp_path / name / "probes.json").read_text()) for name in ("one", "two")]
    assert [each["token"] for each in probes[1]] == [each["token"] for each in probes[0]]
    assert (tmp_path / "two" / "adapter.gguf").is_file()


def test_weights_of_qlora_are_in_four_bits_or_it_is_refused(model: Path, cache: Path) -> None:
    import torch
    from bitsandbytes.nn.modules import Linear4bit
    from transformers import AutoModelForCausalLM

    folder = gguf_weights.unpack(model, cache)
    quantised = four_bit(folder, torch.device("cpu"))
    weight = quantised.model.layers[0].mlp.up_proj.weight
    assert (weight.dtype, weight.quant_type) == (torch.uint8, "nf4")
    with pytest.raises(Invalid, match=r"'qlora', but 'layers\.0\.self_attn\.q_proj' has no 4-bit weights"):
        check_four_bit(AutoModelForCausalLM.from_pretrained(folder), Linear4bit)


@pytest.mark.long
def test_qlora_runs_as_lora_where_the_recipe_says_so(model: Path, cache: Path, features: Path, tmp_path: Path) -> None:
    trainer = PeftTrainer(cache, "cpu")
    recipe = QloraRecipe(rank=4, max_length=256, on_cpu="lora", learning_rate=1e-2)
    trainer.train(job_of(model, features, tmp_path / "qlora", recipe, ((0, 1),)), Heard())
    plain = LoraRecipe(rank=4, max_length=256, learning_rate=1e-2)
    trainer.train(job_of(model, features, tmp_path / "lora", plain, ((0, 1),)), Heard())
    assert digests(tmp_path / "qlora") == digests(tmp_path / "lora")


def test_a_row_longer_than_the_context_is_told(model: Path, cache: Path, tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", [PROMPT + ANSWER, 600])
    job = job_of(model, features, tmp_path / "out", LoraRecipe(), ((0, 1),))
    with pytest.raises(Invalid, match=r"row 1 has 600 tokens, the base model reads 512"):
        PeftTrainer(cache, "cpu").train(job, Heard())
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_in_the_end_is_told(model: Path, cache: Path, features: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "probes.json").symlink_to("/dev/full")
    with pytest.raises(Unavailable, match="the disk is full"):
        PeftTrainer(cache, "cpu").train(job_of(model, features, out, LoraRecipe(rank=2), ((0, 1),)), Heard())


def test_what_is_not_known_is_not_in_the_line() -> None:
    line = {"loss": 1.5, "learning_rate": 1e-3, "tokens_per_s": 310.2, "peak_mb": 900.0, "joules": None}
    assert peft_trainer._note(line) == "loss 1.500, rate 1.0e-03, 310 tokens/s, 900 MB"
    measured = peft_trainer._note({**line, "joules": 7200.0, "validation_loss": 1.25})
    assert measured == "loss 1.500, validation 1.250, rate 1.0e-03, 310 tokens/s, 900 MB, 2.00 Wh"
