"""The child process in which heads are trained: python -m noria.backends.encoder_worker JOB.json PARENT.

JOB.json is a `WorkerJob`; `worker` has both halves of the wire. Progress goes as {"step", "total", "note"}.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import JsonValue

from noria import classes
from noria.backends import encoder_fit, machine
from noria.backends.child import die_with_parent
from noria.backends.encoder_fit import Rows
from noria.backends.encoder_job import Made, Texts, WorkerJob
from noria.backends.encoder_model import TUNED, Encoder, Head
from noria.backends.encoder_wire import Chosen
from noria.backends.worker import Say, serve
from noria.errors import Invalid

PROBES: Final = 20
POINTS: Final = 200
"""Most points of the loss curve that are kept."""
AT_ONCE: Final = 256
"""Texts between two reports of progress."""


def main(argv: Sequence[str]) -> int:
    """Do the job; exit status 0 when it is done."""
    die_with_parent(int(argv[1]))
    job = WorkerJob.model_validate_json(Path(argv[0]).read_bytes())
    return serve(lambda say: train(job, say), extra="train,encoder")


def train(job: WorkerJob, say: Say) -> dict[str, JsonValue]:
    """Train a head as the recipe says and write it; returns what was measured."""
    began = time.monotonic()
    texts = read_texts(job.features, job.several)
    labels = sorted({label for target in texts.targets for label in target})
    if len(labels) < 2:
        raise Invalid(f"all {len(texts.ids)} rows are of one class: '{labels[0]}'", "add rows of the others")
    encoder = Encoder.load(job.model, job.recipe.max_length)
    rows = encoder_fit.rows_of(
        _vectors(encoder, texts.ids, say), texts.targets, labels, texts.groups,
        several=job.several, balance=job.recipe.balance,
    )  # fmt: skip
    fitting = time.monotonic()
    made = _tune(job, texts, rows, say) if job.recipe.layers else _frozen(job, rows)
    if not all(np.isfinite(made.fitted.losses)):
        raise Invalid("the loss is no number any more", "take a smaller learning_rate")
    seconds = time.monotonic() - fitting
    head = _save(job, made, labels)
    probes = _probes(job, encoder, head, texts)
    losses = [round(each, 6) for each in _thinned(made.fitted.losses)]
    _json(job.out / "loss.json", {"loss": losses, "steps": len(made.fitted.losses)})
    tokens = sum(map(len, texts.ids))
    return {
        "seconds": round(time.monotonic() - began, 1),
        "training_seconds": round(seconds, 2),
        "steps": len(made.fitted.losses),
        "tokens": tokens,
        "rows": len(texts.ids),
        "peak_mb": machine.peak_mb(),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "losses": [*losses],
        "l2": made.checked.l2,
        "temperature": round(made.checked.temperature, 4),
        "validation_loss": _rounded(made.checked.loss),
        "validation_accuracy": _rounded(made.checked.right),
        "labels": {**Counter(label for target in texts.targets for label in target)},
        "probes": probes,
        "trained_parameters": head.weight.size + head.bias.size + sum(each.size for each in made.tuned.values()),
        **made.note,
    }


def read_texts(features: Path, several: bool) -> Texts:
    """The rows of `features.parquet`; raises Invalid for rows without a class."""
    import pyarrow.parquet as pq

    table = pq.read_table(features, columns=["input_ids", "target", "group", "text"]).to_pydict()
    targets = [classes.split(each) if several else (each,) for each in table["target"]]
    if missing := sum(not any(each) for each in targets):
        raise Invalid(f"{missing} of {len(targets)} rows have no class", "make the features again")
    return Texts(table["input_ids"], targets, table["group"], table["text"])


def _vectors(encoder: Encoder, ids: Sequence[Sequence[int]], say: Say) -> encoder_fit.Matrix:
    found = []
    for start in range(0, len(ids), AT_ONCE):
        found.append(encoder.embed(ids[start : start + AT_ONCE]))
        say({"step": min(start + AT_ONCE, len(ids)), "total": len(ids), "note": "embedding"})
    return np.concatenate(found).astype(np.float64)


def _frozen(job: WorkerJob, rows: Rows) -> Made:
    checked = encoder_fit.check(rows, job.recipe.l2)
    return Made(encoder_fit.fit(rows, checked.l2), checked, {}, {})


def _tune(job: WorkerJob, texts: Texts, rows: Rows, say: Say) -> Made:
    from noria.backends.encoder_tune import tune

    return tune(job, texts, rows, say)


def _save(job: WorkerJob, made: Made, labels: Sequence[str]) -> Head:
    """Write the head, its temperature multiplied in, and what was tuned."""
    job.out.mkdir(parents=True, exist_ok=True)
    warm = made.checked.temperature
    head = Head(
        (made.fitted.weight / warm).astype(np.float32),
        (made.fitted.bias / warm).astype(np.float32),
        tuple(labels),
        job.several,
    )
    head.save(job.out)
    if made.tuned:
        from safetensors.numpy import save_file

        save_file(dict(sorted(made.tuned.items())), job.out / TUNED)
    for file in job.out.glob("*.safetensors"):
        file.chmod(0o644)
    return head


def _probes(job: WorkerJob, encoder: Encoder, head: Head, texts: Texts) -> int:
    """Write what the trained head says of known texts, by which an engine can be checked against it."""
    count = min(PROBES, len(texts.ids))
    places = sorted({round(number * (len(texts.ids) - 1) / max(1, count - 1)) for number in range(count)})
    vectors = encoder.tuned(job.out).embed([texts.ids[place] for place in places])
    rows = head.probabilities(vectors).tolist()
    chosen = [Chosen(head.labels, tuple(row), head.several) for row in rows]
    probes = [
        {"text": texts.said[place], "answer": each.answer, "logprob": round(each.logprob, 6)}
        for place, each in zip(places, chosen, strict=True)
    ]
    _json(job.out / "probes.json", probes)
    return len(probes)


def _thinned(losses: Sequence[float]) -> list[float]:
    """At most `POINTS` of the losses, first and last among them."""
    if len(losses) <= POINTS:
        return list(losses)
    last = len(losses) - 1
    return [losses[round(number * last / (POINTS - 1))] for number in range(POINTS)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
