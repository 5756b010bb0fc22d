"""Plans of noria.toml's engines, against their models' files, and against what a real one holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noria.apps.plans import Plans
from noria.backends.llamacpp import LlamaCpp
from noria.backends.processes import LinuxMachine
from noria.deployment.memory_plan import GIB, plan_vs_real
from noria.errors import NotFound
from noria.settings import EngineSettings

LOCAL = EngineSettings(kind="llamacpp", model="smollm2-135m-instruct")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    "max_position_embeddings": 4096, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in float32, with the head of its weights alone."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    head = json.dumps(
        {"model.embed_tokens.weight": {"dtype": "F32", "shape": [512, 64], "data_offsets": [0, 131072]}}
    ).encode()
    (tmp_path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    return tmp_path


def test_what_shares_a_machine_is_counted_by_its_plan_unless_a_limit_is_set() -> None:
    plans = Plans()
    plan = plans.plan(LOCAL)
    assert plan is not None
    assert plan.asked.concurrency == LOCAL.slots
    assert plans.need(LOCAL) == int(plan.total)
    assert plans.need(LOCAL.model_copy(update={"replicas": 2})) == 2 * int(plan.total)
    assert plans.need(LOCAL.model_copy(update={"memory": "2GiB"})) == 2 * GIB
    more = plans.plan(LOCAL.model_copy(update={"slots": 2 * LOCAL.slots}))
    assert more is not None
    assert more.cache == 2 * plan.cache
    assert plans.plan(LOCAL) is plan


def test_vllm_on_the_processor_takes_its_whole_cache_and_16_bits(folder: Path) -> None:
    plans = Plans()
    here = EngineSettings(kind="vllm", model=str(folder), device="cpu", cache_gib=3)
    plan = plans.plan(here)
    full = plans.plan(here.model_copy(update={"dtype": "float32", "cache_gib": None}))
    assert plan is not None
    assert full is not None
    assert (plan.precision, plan.cache) == ("bf16", 3 * GIB)
    assert (full.precision, full.cache) == ("fp32", 2 * GIB)
    assert full.weights == 131072, "as the file says"


def test_what_lies_elsewhere_or_has_no_known_shape_is_estimated_by_its_files(folder: Path) -> None:
    plans = Plans()
    there = EngineSettings(kind="vllm", model=str(folder), device="cuda")
    assert plans.plan(there) is None
    assert plans.plan(EngineSettings(kind="vllm", model=str(folder), device="cpu", container="podman")) is None
    assert plans.plan(EngineSettings(kind="openai", url="http://127.0.0.1:9/v1")) is None
    assert plans.need(there) > sum(file.stat().st_size for file in folder.iterdir())
    (folder / "config.json").write_text("{}")
    assert plans.plan(there.model_copy(update={"device": "cpu"})) is None
    with pytest.raises(NotFound):
        plans.need(EngineSettings(kind="llamacpp", model="not-there.gguf"))


@pytest.mark.slow
def test_llama_cpp_takes_what_was_planned_within_a_tenth(tmp_path: Path) -> None:
    plan = Plans().plan(LOCAL)
    engine = LlamaCpp().start(LOCAL, {}, tmp_path / "engine.log")
    try:
        taken = LinuxMachine().taken(engine.pids)
    finally:
        engine.close()
    assert plan is not None
    assert abs(plan_vs_real(plan, taken).off) < 0.1
