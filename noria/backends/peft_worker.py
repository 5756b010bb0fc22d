"""The child process in which models are unpacked and trained.

Started as `python -m noria.backends.peft_worker JOB.json PARENT`: JOB.json is a `WorkerJob`, PARENT the launcher's
process id. Standard output carries one JSON object a line: progress as {"step", "total", "loss", …}, measurements as
{"validated", "loss"} and last {"result": …} or {"error", "hint", "code"}. What libraries print goes to standard error.
A job of several ranks is run by torchrun in this process, and the ranks are this module again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from pydantic import JsonValue

from noria.backends import gguf_weights
from noria.backends.child import die_with_parent
from noria.backends.peft_job import Row, WorkerJob, check_lengths, read_rows
from noria.backends.peft_loop import Loop
from noria.backends.peft_losses import Answers, Loss, Preferences
from noria.backends.peft_meter import Course, curves, peak_mb, picture
from noria.backends.peft_model import Learner, load, prepare, save
from noria.backends.peft_probes import Likeliest, probe_rows, probes, untrained
from noria.backends.peft_ranks import joined, launch
from noria.backends.peft_state import loss_json
from noria.backends.peft_trunk import Trunk
from noria.backends.worker import Say, serve
from noria.errors import Invalid
from noria.settings import DpoRecipe, FullRecipe, LoraRecipe, QloraRecipe, environment, export


def main(argv: Sequence[str]) -> int:
    """Do the job named on the command line; returns the exit status."""
    job = WorkerJob.model_validate_json(Path(argv[0]).read_text())
    die_with_parent(int(argv[1]))
    if job.mode == "train" and job.ranks > 1 and environment("RANK") is None:
        return launch(argv[0], job)
    return serve(lambda say: _do(job, say), speaks=lambda: environment("RANK", "0") == "0")


def _do(job: WorkerJob, say: Say) -> dict[str, JsonValue]:
    if job.mode == "train":
        return train(job, say)
    return {"folder": str(gguf_weights.unpack(job.model, job.cache))}


def train(job: WorkerJob, say: Say) -> dict[str, JsonValue]:
    """Train as the plan says, write the product with its curve and probes; returns what was measured.

    The loss of a step is the mean over the learned tokens of its batch. The same job on the same machine writes the
    same bytes, also when it was killed in between and goes on from a checkpoint.
    """
    if job.features is None or job.out is None or not job.plan:
        raise Invalid("a training job needs features, a plan and a folder to write to", "this is a defect of noria")
    began = time.monotonic()
    export(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_TELEMETRY="1")
    rows = read_rows(job.features, (*job.plan, *([job.validation] if job.validation else [])))
    if not isinstance(job.recipe, QloraRecipe):
        # peft would import it, and with it torch's compiler: a third of the time to start.
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    prepare(job.recipe.seed, job.device)
    with joined(job) as ranks:
        learner = load(job, ranks.number)
        check_lengths(rows, learner.causal.config.max_position_embeddings)
        tested = probe_rows(job.plan, rows)
        plain = _plain(job, learner, tested)
        course = Loop(job, learner, _loss(job, learner, rows), rows, ranks, say).run()
        # Where weights are spread, nobody can compute alone.
        found = probes(learner.causal, tested, plain) if job.sharded else []
        if ranks.number:
            return {}
        save(learner, job.recipe, job.model, job.out)
    found = found or probes(_served(job, learner).causal, tested, plain)
    (job.out / "probes.json").write_text(json.dumps(found, sort_keys=True) + "\n")
    (job.out / "loss.json").write_text(loss_json(course))
    picture(course, job.out / "loss.png")
    parameters = sum(each.numel() for each in learner.trained.values())
    return {
        "seconds": round(time.monotonic() - began, 1),
        **_told(job, course),
        "probes": len(found),
        "trained_parameters": parameters,
    }


def _loss(job: WorkerJob, learner: Learner, rows: dict[int, Row]) -> Loss:
    answers = Answers(learner.causal, Trunk(learner.causal, learner.first, rows), rows)
    if not isinstance(job.recipe, DpoRecipe):
        return answers
    learner.wrapped.eval()
    with learner.computing():
        return Preferences(answers, rows, job.recipe.beta, learner.at_once)


def _plain(job: WorkerJob, learner: Learner, tested: Sequence[Row]) -> list[Likeliest]:
    """What the served base says; where all weights are trained, this must be asked before."""
    if isinstance(job.recipe, FullRecipe) and job.start is not None:
        return untrained(load(job.model_copy(update={"start": None})).causal, tested, nullcontext())
    if isinstance(job.recipe, FullRecipe):
        return untrained(learner.causal, tested, nullcontext())
    if isinstance(job.recipe, QloraRecipe) and job.device == "cuda":
        return untrained(load(_unquantized(job)).causal, tested, nullcontext())
    return untrained(learner.causal, tested, learner.wrapped.disable_adapter())


def _served(job: WorkerJob, learner: Learner) -> Learner:
    """The trained model as an engine has it: an adapter that was learned beside 4-bit weights serves on the base."""
    if isinstance(job.recipe, QloraRecipe) and job.device == "cuda":
        return load(_unquantized(job).model_copy(update={"start": job.out}))
    return learner


def _unquantized(job: WorkerJob) -> WorkerJob:
    fields = job.recipe.model_dump(include=set(LoraRecipe.model_fields) - {"kind"})
    return job.model_copy(update={"recipe": LoraRecipe(**fields), "start": None})


def _told(job: WorkerJob, course: Course) -> dict[str, JsonValue]:
    best = course.best
    told: dict[str, JsonValue] = {
        "training_seconds": round(course.seconds, 1),
        "steps": len(course.losses),
        "planned_steps": len(job.plan),
        "tokens": course.tokens,
        "tokens_per_s": round(course.tokens / max(1e-9, course.seconds), 1),
        "peak_mb": peak_mb(),
        "joules": course.joules[-1] if course.joules else None,
        "first_loss": course.losses[0],
        "last_loss": course.losses[-1],
        "losses": list(course.losses),
        "curves": {name: list(values) for name, values in curves(course).items()},
    }
    if best is not None:
        told |= {"best_step": best[0], "validation_loss": best[1]}
        told["validation"] = [[step, loss] for step, loss in course.validation]
    return told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
