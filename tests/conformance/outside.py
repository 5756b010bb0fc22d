"""Outside engines under test, launched from the environments of environments.py, or attached where they already run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import environments
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from noria.backends import encoder_model, openai, served
from noria.backends.served_kinds import MAKES
from noria.ports import Engine, EngineKind
from noria.settings import EngineSettings, environment
from noria.types import Ref

MODEL = "smollm2-135m-instruct"
ENCODER = "all-minilm-l6-v2"
CONTEXT = 512
KEY = "ENGINE_KEY"
"""The variable with the key of an engine that is attached."""
LABELS = ("safe", "toxic", "spam")


@dataclass(frozen=True)
class Bench:
    """An engine under test, with all that one needs to start another. `jobs` are engines by path, where not itself."""

    kind: EngineKind
    settings: EngineSettings
    adapters: dict[Ref, Path]
    engine: Engine
    log: Path
    spare: dict[Ref, Path] = field(default_factory=dict)
    """Adapters that it was not started with and can take."""
    jobs: dict[str, Engine] = field(default_factory=dict)

    def again(self) -> Engine:
        return self.kind.start(self.settings, self.adapters, self.log)


def refs(*names: str) -> list[Ref]:
    return [Ref(kind="adapter", name=name, digest=name.encode().hex().ljust(16, "0")[:16]) for name in names]


def peft_lora(folder: Path, seed: int) -> Path:
    """A LoRA on every query and value projection of SmolLM2-135M, far too large to go unnoticed."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(30):
        for name, rows in (("q_proj", 576), ("v_proj", 192)):
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{place}.lora_A.weight"] = random.normal(0, 0.05, (4, 576)).astype(np.float32)
            tensors[f"{place}.lora_B.weight"] = random.normal(0, 0.05, (rows, 4)).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": MODEL, "r": 4, "lora_alpha": 8,
        "lora_dropout": 0.0, "bias": "none", "target_modules": ["q_proj", "v_proj"], "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def judge(folder: Path, labels: tuple[str, ...], seed: int) -> Path:
    """MiniLM with a random head of so many outputs: a cross-encoder (one) or a classifier."""
    source = encoder_model.encoder_folder(ENCODER)
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    width = 384
    tensors = {f"bert.{name}": values for name, values in load_file(source / "model.safetensors").items()}
    tensors |= {
        "bert.pooler.dense.weight": random.normal(0, 0.05, (width, width)).astype(np.float32),
        "bert.pooler.dense.bias": np.zeros(width, np.float32),
        "classifier.weight": random.normal(0, 0.5, (len(labels), width)).astype(np.float32),
        "classifier.bias": np.zeros(len(labels), np.float32),
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text()) | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    for file in source.iterdir():
        if file.name.startswith(("tokenizer", "vocab", "special")):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


@contextmanager
def launched(kind: EngineKind, settings: EngineSettings, folder: Path, adapters: dict[Ref, Path]) -> Iterator[Engine]:
    engine = kind.start(settings, adapters, folder / "engine.log")
    try:
        yield engine
    finally:
        engine.close()


def of_environment(name: str, **told: object) -> EngineSettings:
    if not environments.installed(name):
        pytest.skip(f"{name} is not installed: make conformance-engines ENGINE={name}")
    program = str(environments.python_of(name))
    return EngineSettings.model_validate({"kind": name, "program": program, "device": "cpu", **told})


@contextmanager
def vllm_bench(folder: Path) -> Iterator[Bench]:
    settings = of_environment(
        "vllm", model=MODEL, slots=4, context=CONTEXT, dtype="bfloat16", loras=1, tools="hermes", cache_gib=1.0
    )
    kind = served.open_vllm()
    adapters = {ref: peft_lora(folder / ref.name, seed) for seed, ref in enumerate(refs("first", "second"))}
    (spare,) = refs("third")
    with launched(kind, settings, folder, adapters) as engine:
        log = folder / "engine.log"
        yield Bench(kind, settings, adapters, engine, log, spare={spare: peft_lora(folder / "third", 7)})


@contextmanager
def transformers_bench(folder: Path) -> Iterator[Bench]:
    settings = of_environment("transformers", model=MODEL, slots=4, context=CONTEXT, dtype="bfloat16")
    kind = served.open_transformers()
    with launched(kind, settings, folder, {}) as engine:
        yield Bench(kind, settings, {}, engine, folder / "engine.log")


@contextmanager
def infinity_bench(folder: Path) -> Iterator[Bench]:
    """A server each for vectors, ranks and classes: what one can do is its model's matter."""
    kind = served.open_infinity()
    models = {
        "embeddings": ENCODER,
        "rerank": str(judge(folder / "reranker", ("score",), 3)),
        "classify": str(judge(folder / "classifier", LABELS, 5)),
    }
    with ExitStack() as stack:
        jobs, settings = {}, {}
        for job, model in models.items():
            settings[job] = of_environment("infinity", model=model, context=CONTEXT)
            jobs[job] = stack.enter_context(launched(kind, settings[job], folder / job, {}))
        log = folder / "embeddings" / "engine.log"
        yield Bench(kind, settings["embeddings"], {}, jobs["embeddings"], log, jobs=jobs)


BENCHES = {"vllm": vllm_bench, "transformers": transformers_bench, "infinity": infinity_bench}


@contextmanager
def attached(name: str, url: str, folder: Path) -> Iterator[Bench]:
    """A server that runs somewhere, of any kind. It is asked for what needs no adapters of its own."""
    key = KEY if environment(KEY) else None
    settings = EngineSettings(kind=name, url=url, key=key, context=CONTEXT)
    kind = served.Served(MAKES[name]) if name in MAKES else openai.open()
    with launched(kind, settings, folder, {}) as engine:
        yield Bench(kind, settings, {}, engine, folder / "engine.log")
