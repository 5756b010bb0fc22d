"""The child process in which models are unpacked and adapters trained.

Started as `python -m noria.backends.peft_worker JOB.json PARENT`: JOB.json is a `WorkerJob`, PARENT the launcher's
process id. Standard output carries one JSON object a line: progress as {"step", "total", "loss", "tokens_per_s",
"peak_mb"} and last {"result": …} or {"error", "hint", "code"}. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import BaseModel, ConfigDict, JsonValue

from noria.backends import gguf_adapter, gguf_weights
from noria.backends.child import die_with_parent
from noria.backends.peft_trunk import Trunk
from noria.errors import Invalid, NoriaError, Unavailable
from noria.settings import LoraRecipe, export

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IGNORED = -100
"""Label of a position that is not learned."""
MICRO_TOKENS = 300
"""Padded tokens that go through all layers at once; a step's batch is cut into parts of this size to bound memory.
Where fewer layers are trained, each part holds more."""
PROBE_ROWS, PROBES_PER_ROW, BASE_PROBES = 20, 10, 20
WARM_UP = 0.06
"""Share of the steps in which the learning rate rises."""

Say = Callable[[dict[str, JsonValue]], None]


class WorkerJob(BaseModel):
    """What the launcher tells this process; `features` is the Parquet file, `cache` where models are unpacked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["unpack", "train"]
    model: Path
    cache: Path
    features: Path | None = None
    plan: tuple[tuple[int, ...], ...] = ()
    start: Path | None = None
    recipe: LoraRecipe = LoraRecipe()
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids of one example and, of the same length, its labels (`IGNORED` where nothing is learned)."""

    tokens: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(slots=True)
class Meter:
    """What is measured while training runs: one loss a step, tokens and seconds so far."""

    total: int
    say: Say
    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, loss: float, tokens: int) -> None:
        """Note a finished step and tell the launcher."""
        self.losses.append(round(loss, 6))
        self.tokens += tokens
        self.say(
            {
                "step": len(self.losses),
                "total": self.total,
                "loss": self.losses[-1],
                "tokens_per_s": self.rate(),
                "peak_mb": peak_mb(),
            }
        )

    def rate(self) -> float:
        """Tokens a second since the beginning, padding not counted."""
        return round(self.tokens / max(1e-9, time.monotonic() - self.began), 1)


def main(argv: Sequence[str]) -> int:
    """Do the job named on the command line; returns the exit status."""
    job = WorkerJob.model_validate_json(Path(argv[0]).read_text())
    die_with_parent(int(argv[1]))
    # Libraries print to standard output as they like; the launcher reads JSON lines there.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(line: dict[str, JsonValue]) -> None:
        _write(channel, line)

    try:
        say({"result": _do(job, say)})
    except NoriaError as error:
        say({"error": error.fact, "hint": error.hint, "code": error.code})
        return 1
    except ModuleNotFoundError as error:
        fact, hint = f"'{error.name}' is not installed", "pip install 'noria[train]'"
        say({"error": fact, "hint": hint, "code": Unavailable.code})
        return 1
    return 0


def _do(job: WorkerJob, say: Say) -> dict[str, JsonValue]:
    if job.mode == "train":
        return train(job, say)
    return {"folder": str(gguf_weights.unpack(job.model, job.cache))}


def _write(channel: TextIO, line: dict[str, JsonValue]) -> None:
    channel.write(json.dumps(line) + "\n")
    channel.flush()


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would count the launcher's memory too: its high mark survives fork and exec.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def train(job: WorkerJob, say: Say) -> dict[str, JsonValue]:
    """Train a LoRA adapter as the plan says and write it with its curve and probes; returns what was measured.

    The loss of a step is the mean over the learned tokens of its batch. The same job on the same machine writes the
    same bytes.
    """
    if job.features is None or job.out is None or not job.plan:
        raise Invalid("a training job needs features, a plan and a folder to write to", "this is a defect of noria")
    began = time.monotonic()
    export(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_TELEMETRY="1")
    rows = read_rows(job.features, job.plan)
    folder = gguf_weights.unpack(job.model, job.cache)
    _prepare(job.recipe.seed)
    model = _model(folder, job)
    meter = Meter(len(job.plan), say)
    _fit(model, folder, rows, job, meter)
    seconds, tokens_per_s = time.monotonic() - meter.began, meter.rate()
    job.out.mkdir(parents=True, exist_ok=True)
    _save(model, folder.name, job.out)
    gguf_adapter.convert(
        job.out,
        job.out / "adapter.gguf",
        heads=model.config.num_attention_heads,
        kv_heads=model.config.num_key_value_heads,
    )
    probes = _probes(model, _probe_rows(job.plan, rows))
    _json(job.out / "probes.json", probes)
    _json(job.out / "loss.json", {"steps": list(range(1, meter.total + 1)), "loss": meter.losses})
    _plot(meter.losses, job.out / "loss.png")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "training_seconds": round(seconds, 1),
        "steps": meter.total,
        "tokens": meter.tokens,
        "tokens_per_s": tokens_per_s,
        "peak_mb": peak_mb(),
        "first_loss": meter.losses[0],
        "last_loss": meter.losses[-1],
        "losses": list(meter.losses),
        "probes": len(probes),
        "trained_parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
    }


def read_rows(features: Path, plan: Sequence[Sequence[int]]) -> dict[int, Row]:
    """The rows of `features.parquet` that the plan uses, by number; raises Invalid for a plan that does not fit."""
    import pyarrow.parquet as pq

    columns = ["input_ids", "loss_mask"]
    table = pq.read_table(features, columns=columns)
    wanted = sorted({number for step in plan for number in step})
    if not all(plan) or wanted[0] < 0 or wanted[-1] >= table.num_rows:
        raise Invalid(
            f"the plan does not fit '{features.name}', which has {table.num_rows} rows", "make the features again"
        )
    rows = {}
    for number, row in zip(wanted, table.take(wanted).to_pylist(), strict=True):
        tokens, mask = tuple(row["input_ids"]), row["loss_mask"]
        # The first token has nothing before it to be predicted from.
        if len(mask) != len(tokens) or not any(mask[1:]):
            raise Invalid(f"row {number} of '{features.name}' has nothing to learn", "make the features again")
        rows[number] = Row(tokens, tuple(t if m else IGNORED for t, m in zip(tokens, mask, strict=True)))
    return rows


def micro_batches(rows: Mapping[int, Row], numbers: Sequence[int], limit: int) -> list[list[int]]:
    """Cut a batch into parts of at most `limit` padded tokens, longest rows first; a longer row is a part alone."""
    parts: list[list[int]] = []
    for number in sorted(numbers, key=lambda number: len(rows[number].tokens), reverse=True):
        if parts and (len(parts[-1]) + 1) * len(rows[parts[-1][0]].tokens) <= limit:
            parts[-1].append(number)
        else:
            parts.append([number])
    return parts


def adapted_layers(recipe: LoraRecipe, layers: int) -> range:
    """Numbers of the layers that get an adapter: the uppermost ones, or all where the recipe names no number."""
    return range(max(0, layers - (recipe.layers or layers)), layers)


def _prepare(seed: int) -> None:
    import numpy as np
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _fast_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 here: with AVX-512 it is, with AVX2 it is 30 times slower."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _model(folder: Path, job: WorkerJob) -> Any:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    recipe = job.recipe
    if job.start is None:
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=0.0,
            target_modules=list(PROJECTIONS),
            task_type="CAUSAL_LM",
            layers_to_transform=list(adapted_layers(recipe, base.config.num_hidden_layers)),
        )
        return get_peft_model(base, config)
    model = PeftModel.from_pretrained(base, job.start, is_trainable=True)
    config = model.peft_config["default"]
    layers = list(adapted_layers(recipe, base.config.num_hidden_layers))
    if (config.r, config.lora_alpha, config.layers_to_transform) != (recipe.rank, recipe.alpha, layers):
        raise Invalid(
            f"the adapter to go on from has rank {config.r}, alpha {config.lora_alpha} and "
            f"{len(config.layers_to_transform)} layers; "
            f"the recipe wants {recipe.rank}, {recipe.alpha} and {len(layers)}",
            'set start = "base" in the recipe, or the old values',
        )
    return model


def _trainer_class() -> type[Any]:
    """The SFTTrainer of trl with batches in the plan's order, in parts that fit into memory, and a lean loss."""
    import torch
    from torch.utils.data import DataLoader
    from trl import SFTTrainer

    class PlannedTrainer(SFTTrainer):  # type: ignore[misc]
        """`train_dataset` has one item a step: the numbers of its rows in `known`."""

        meter: Meter
        known: dict[int, Row]
        trunk: Trunk
        at_once: int

        def get_train_dataloader(self) -> Any:
            # One item is one step's batch; without shuffling the plan's order is kept.
            return DataLoader(self.train_dataset, batch_size=None, shuffle=False)

        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            rows = [self.known[number] for number in inputs["step"]]
            learned = sum(label != IGNORED for row in rows for label in row.labels[1:])
            loss = torch.zeros(())
            for part in micro_batches(self.known, inputs["step"], self.at_once):
                loss += super().training_step(model, {"rows": part}, learned)
            self.meter.add(loss.item(), sum(len(row.tokens) for row in rows))
            return loss

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            # trl computes the logits of every position where there is no Triton; only learned ones matter.
            hidden = self.trunk.hidden(inputs["rows"])[:, :-1]
            labels = _labels([self.known[number] for number in inputs["rows"]])[:, 1:]
            learned = labels != IGNORED
            logits = model.get_base_model().lm_head(hidden[learned]).float()
            return torch.nn.functional.cross_entropy(logits, labels[learned], reduction="sum") / num_items_in_batch

    return PlannedTrainer


def _labels(rows: Sequence[Row]) -> Any:
    import torch

    longest = max(len(row.tokens) for row in rows)
    return torch.tensor([[*row.labels, *[IGNORED] * (longest - len(row.labels))] for row in rows])


def _fit(model: Any, folder: Path, rows: dict[int, Row], job: WorkerJob, meter: Meter) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig

    steps = len(job.plan)
    arguments = SFTConfig(
        output_dir=job.out,
        max_steps=steps,
        learning_rate=job.recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(WARM_UP * steps)),
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=job.recipe.seed,
        use_cpu=True,
        bf16=_fast_bfloat16(),
        fp16=False,
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = _trainer_class()(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"step": [list(step) for step in job.plan]}),
        data_collator=list,
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.meter, trainer.known = meter, rows
    causal = model.get_base_model()
    adapted = adapted_layers(job.recipe, causal.config.num_hidden_layers)
    trainer.at_once = MICRO_TOKENS * causal.config.num_hidden_layers // len(adapted)
    trainer.trunk = Trunk(causal, adapted.start, {number: row.tokens for number, row in rows.items()})
    meter.began = time.monotonic()
    trainer.train()


def _save(model: Any, base: str, out: Path) -> None:
    """PEFT's own two files, the same bytes whatever the folder and the process."""
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(out, save_embedding_layers=False)
    # A generated model card with place-holders tells nobody anything.
    (out / "README.md").unlink(missing_ok=True)
    (out / "adapter_model.safetensors").chmod(0o644)
    config = json.loads((out / "adapter_config.json").read_text())
    config["target_modules"] = sorted(config["target_modules"])
    config["inference_mode"] = True
    _json(out / "adapter_config.json", config, indent=2)


def _probe_rows(plan: Sequence[Sequence[int]], rows: dict[int, Row]) -> list[Row]:
    """The last distinct rows of the plan: what the trained model saw most recently."""
    backwards = dict.fromkeys(number for step in reversed(plan) for number in reversed(step))
    return [rows[number] for number in list(backwards)[:PROBE_ROWS]]


def _probes(model: Any, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
    """Next tokens of the trained model after known prefixes, by which an engine can be checked against it.

    Each probe has `prefix` (token ids), `token` (the likeliest next id) and `logprob` (natural, float32); the first
    `BASE_PROBES` have `base_token` and `base_logprob` too, those of the model without the adapter.
    """
    found: list[dict[str, JsonValue]] = []
    for row in rows:
        places = _spread([place for place, label in enumerate(row.labels) if place and label != IGNORED])
        tuned = _next_tokens(model, row, places)
        for place, (token, logprob) in zip(places, tuned, strict=True):
            found.append({"prefix": list(row.tokens[:place]), "token": token, "logprob": logprob})
        if len(found) - len(places) < BASE_PROBES:
            with model.disable_adapter():
                plain = _next_tokens(model, row, places)
            for probe, (token, logprob) in zip(found[-len(places) :], plain, strict=True):
                probe |= {"base_token": token, "base_logprob": logprob}
    return found


def _spread(places: Sequence[int]) -> list[int]:
    """At most `PROBES_PER_ROW` of the places, evenly spread, first and last among them."""
    if len(places) <= PROBES_PER_ROW:
        return list(places)
    last = len(places) - 1
    return [places[round(number * last / (PROBES_PER_ROW - 1))] for number in range(PROBES_PER_ROW)]


def _next_tokens(model: Any, row: Row, places: Sequence[int]) -> list[tuple[int, float]]:
    import torch

    causal = model.get_base_model()
    model.eval()
    with torch.inference_mode():
        hidden = causal.model(input_ids=torch.tensor([row.tokens]), use_cache=False).last_hidden_state[0]
        logits = causal.lm_head(hidden[[place - 1 for place in places]]).float()
        best = torch.log_softmax(logits, dim=-1).max(dim=-1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(token, round(logprob, 6)) for token, logprob in pairs]


def _plot(losses: Sequence[float], file: Path) -> None:
    """Loss by step, with a running mean over a tenth of the steps."""
    from matplotlib.figure import Figure

    steps, width = range(1, len(losses) + 1), max(1, len(losses) // 10)
    smooth = [sum(part) / len(part) for end in steps if (part := losses[max(0, end - width) : end])]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=1, label="each step")
    axes.plot(steps, smooth, color="tab:blue", linewidth=2, label=f"mean of {width} steps")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per learned token")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=100, metadata={"Software": None})


def _json(file: Path, value: Any, indent: int | None = None) -> None:
    file.write_text(json.dumps(value, indent=indent, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
