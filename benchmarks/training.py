"""Fine-tuning throughput beside plain TRL: target tokens per CPU second, and whether the loss is the same.

The rows are the help desk's own, made by noria's own stages. Both sides get the same model, the same LoRA, the same
random batches in the same order and the same steps, in turns, each in a process of its own. TRL's SFTTrainer is as its
documentation has it: answers alone are learned, a batch is padded to its longest row. CPU seconds (user and system) of
the steps are counted, not those of loading. All layers are adapted, and in a second pair the uppermost eight, as the
example does, where frozen layers are computed once a row.

    python benchmarks/training.py                 writes benchmarks/results/training.json
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "training.json"
SIDES = ("noria", "trl")
LEAST, CLOSE = 1.3, 0.01
"""Times TRL's throughput that is promised, and how near the losses must be."""


class Quiet:
    """A progress that says nothing."""

    def update(self, label: str, done: float, total: float, note: str = "") -> None:
        """Nothing."""


def rows_of(folder: Path) -> tuple[Path, Path]:
    """The help desk's features, made in `folder`, and the base model."""
    from noria import cycle, settings, wiring
    from noria.apps import demo

    demo.prepare(folder, ROOT / "examples" / "helpdesk")
    platform = wiring.open_platform(settings.load(folder / "noria.toml"))
    made = cycle.turn(platform, None, Quiet(), until="features").artifact("features")
    return platform.lake.path(made.ref) / "features.parquet", platform.model("smollm2-135m-instruct")


def job_of(arguments: argparse.Namespace) -> Any:
    """What both sides train."""
    import pyarrow.parquet as pq

    from noria.backends.peft_job import WorkerJob
    from noria.settings import LoraRecipe

    count = pq.read_metadata(arguments.features).num_rows
    order = list(range(count)) * (1 + arguments.steps * arguments.batch // count)
    random.Random(7).shuffle(order)
    plan = [order[at * arguments.batch : (at + 1) * arguments.batch] for at in range(arguments.steps)]
    recipe = LoraRecipe(rank=16, alpha=32, layers=arguments.layers or None, learning_rate=2e-3, batch=arguments.batch)
    return WorkerJob.model_validate(
        {
            "mode": "train",
            "model": arguments.model,
            "cache": arguments.cache,
            "features": arguments.features,
            "plan": plan,
            "recipe": recipe,
        }
    )


def noria_side(job: Any) -> tuple[float, list[float]]:
    """CPU seconds and losses of noria's own loop."""
    from noria.backends.peft_job import read_rows
    from noria.backends.peft_loop import Loop
    from noria.backends.peft_losses import Answers
    from noria.backends.peft_model import load
    from noria.backends.peft_ranks import Ranks
    from noria.backends.peft_trunk import Trunk

    rows, learner = read_rows(job.features, job.plan), load(job)
    began = cpu_seconds()
    loss = Answers(learner.causal, Trunk(learner.causal, learner.first, rows), rows)
    course = Loop(job, learner, loss, rows, Ranks(), lambda line: None).run()
    return cpu_seconds() - began, course.losses


def trl_side(job: Any, scratch: Path) -> tuple[float, list[float]]:
    """CPU seconds and losses of plain SFTTrainer on the same batches."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from noria.backends import gguf_weights
    from noria.backends.peft_job import read_rows
    from noria.backends.peft_model import load

    rows, learner = read_rows(job.features, job.plan), load(job)
    order = [rows[number] for step in job.plan for number in step]
    data = Dataset.from_dict(
        {
            "input_ids": [list(row.tokens) for row in order],
            "completion_mask": [[int(label != -100) for label in row.labels] for row in order],
        }
    )
    steps = len(job.plan)
    settings = SFTConfig(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=job.recipe.batch,
        learning_rate=job.recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(0.06 * steps)),
        completion_only_loss=True,
        max_length=None,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=learner.half is not None,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf_weights.unpack(job.model, job.cache))
    trainer = SFTTrainer(model=learner.wrapped, args=settings, train_dataset=data, processing_class=tokenizer)
    began = cpu_seconds()
    trainer.train()
    seconds = cpu_seconds() - began
    return seconds, [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]


def cpu_seconds() -> float:
    """Of this process, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def child(arguments: argparse.Namespace) -> None:
    """Train one side; prints one JSON line."""
    from noria.backends.peft_model import prepare
    from noria.settings import export

    export(HF_HUB_OFFLINE="1")
    job = job_of(arguments)
    prepare(7, "cpu")
    if arguments.side == "noria":
        seconds, losses = noria_side(job)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            seconds, losses = trl_side(job, Path(scratch))
    print(json.dumps({"cpu_s": round(seconds, 2), "losses": [round(each, 5) for each in losses]}))


def compared(arguments: argparse.Namespace, features: Path, model: Path, cache: Path, layers: int) -> dict[str, Any]:
    """Both sides in turns with so many layers adapted (0: all)."""
    from noria.backends.peft_job import read_rows
    from noria.settings import child_environment

    told = argparse.Namespace(**{**vars(arguments), "features": features, "model": model, "cache": cache})
    told.layers = layers
    plan = job_of(told).plan
    rows = read_rows(features, plan)
    targets = sum(len(rows[number].learned) for step in plan for number in step)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for turn in range(arguments.turns):
        for side in SIDES if turn % 2 == 0 else reversed(SIDES):
            command = [sys.executable, __file__, "--side", side, "--layers", str(layers), "--features", str(features)]
            command += ["--model", str(model), "--cache", str(cache)]
            command += ["--steps", str(arguments.steps), "--batch", str(arguments.batch)]
            env = child_environment(GOMP_SPINCOUNT="1000", PYTHONWARNINGS="ignore", PYTHONPATH=str(ROOT))
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, text=True)
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"layers {layers or 'all'}, turn {turn + 1}, {side}: {runs[side][-1]['cpu_s']} CPU s", flush=True)
    rate = {side: targets * arguments.turns / sum(run["cpu_s"] for run in runs[side]) for side in SIDES}
    last = {side: runs[side][0]["losses"][-1] for side in SIDES}
    return {
        "layers": layers or "all",
        "steps": arguments.steps,
        "batch": arguments.batch,
        "target_tokens": targets,
        "target_tokens_per_cpu_s": {side: round(value, 2) for side, value in rate.items()},
        "ratio": round(rate["noria"] / rate["trl"], 3),
        "final_loss": last,
        "final_loss_differs_by": round(abs(last["noria"] - last["trl"]) / last["trl"], 6),
        "runs": runs,
    }


def main() -> int:
    """Measure and write; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=2)
    for name in ("--side", "--features", "--model", "--cache"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        child(arguments)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "helpdesk"
        features, model = rows_of(folder)
        cache = folder / ".noria" / "models"
        found = [compared(arguments, features, model, cache, layers) for layers in (0, 8)]
    kept = all(each["ratio"] >= LEAST and each["final_loss_differs_by"] <= CLOSE for each in found)
    RESULT.write_text(json.dumps({"promised": {"ratio": LEAST, "loss": CLOSE}, "kept": kept, "pairs": found}, indent=1))
    for each in found:
        print(f"layers {each['layers']}: {each['ratio']} times TRL, final losses {each['final_loss']}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
