"""The child process in which models are pruned, merged, quantized by torch's libraries, and scored.

Its job is one of `shrink_job`; see `worker` for how it is started. Progress is {"step", "total", "note"}.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue, TypeAdapter

from noria.backends import prune, shrink_bits
from noria.backends.child import die_with_parent
from noria.backends.shrink_job import BitsJob, MergeJob, PruneJob, ScoreJob, ShrinkJob
from noria.backends.shrink_model import Read, opened, quiet, read_rows, write
from noria.backends.worker import Say, serve
from noria.settings import export


def main(argv: Sequence[str]) -> int:
    """Do the job named on the command line; returns the exit status."""
    job: ShrinkJob = TypeAdapter[ShrinkJob](ShrinkJob).validate_json(Path(argv[0]).read_text())
    die_with_parent(int(argv[1]))
    export(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_TELEMETRY="1")
    return serve(lambda say: _do(job, say))


def _do(job: ShrinkJob, say: Say) -> dict[str, JsonValue]:
    quiet()
    if isinstance(job, ScoreJob):
        return _score(job, say)
    if isinstance(job, PruneJob):
        return _prune(job, say)
    if isinstance(job, BitsJob):
        return shrink_bits.make(job)
    return _merge(job)


def _merge(job: MergeJob) -> dict[str, JsonValue]:
    causal = opened(job.model)
    if job.adapter is not None:
        from peft import PeftModel

        causal = PeftModel.from_pretrained(causal, job.adapter).merge_and_unload()
    write(causal, job.model, job.out, job.file, job.kind)
    return {"parameters": sum(each.numel() for each in causal.parameters())}


def _prune(job: PruneJob, say: Say) -> dict[str, JsonValue]:
    causal = opened(job.model)
    rows = [[*row.prompt, *row.answer] for row in read_rows(job.model, job.rows)]

    def heard(done: int, total: int) -> None:
        say({"step": done, "total": total, "note": "layers"})

    told = prune.carry_out(causal, job, rows, heard)
    write(causal, job.model, job.out, job.file, job.kind)
    if job.method == "layers":
        return told
    # What counts is what was written, at the precision it was written in.
    return {**told, "sparsity": prune.sparsity(opened(job.file))}


def _score(job: ScoreJob, say: Say) -> dict[str, JsonValue]:
    import numpy as np

    rows = read_rows(job.models[0], job.rows)
    job.out.mkdir(parents=True, exist_ok=True)
    texts: list[list[int]] = []
    told: list[JsonValue] = []
    for number, model in enumerate(job.models):
        say({"step": number, "total": len(job.models), "note": model.name})
        causal = opened(model)
        if not number:
            texts = _continued(causal, rows, job.length)
        logits = [_logits(causal, row.prompt, text) for row, text in zip(rows, texts, strict=True) if text]
        np.save(job.out / f"logits-{number}.npy", np.concatenate(logits))
        np.save(job.out / f"nll-{number}.npy", np.concatenate([_losses(causal, row) for row in rows]))
        told.append(_answers(causal, model, rows[: job.answers], job.most) if model.is_dir() else {})
        del causal
    say({"step": len(job.models), "total": len(job.models), "note": ""})
    return {"models": told, "rows": len(rows), "positions": sum(map(len, texts))}


def _logits(causal: Any, prompt: Sequence[int], text: Sequence[int]) -> Any:
    """Logits of the tokens of `text` after the prompt: float32, tokens x vocabulary."""
    import torch

    with torch.inference_mode():
        found = causal(torch.tensor([[*prompt, *text[:-1]]])).logits[0, len(prompt) - 1 :]
    return found.float().numpy()


def _losses(causal: Any, row: Read) -> Any:
    """Negative log-likelihoods of a row's own answer, in nats a token."""
    import torch

    if not row.answer:
        return torch.zeros(0).numpy()
    logits = torch.from_numpy(_logits(causal, row.prompt, row.answer))
    return torch.nn.functional.cross_entropy(logits, torch.tensor(row.answer), reduction="none").numpy()


def _continued(causal: Any, rows: Sequence[Read], length: int) -> list[list[int]]:
    """Greedy continuations of the prompts, one row at a time, so that nothing is padded."""
    import torch

    found = []
    for row in rows:
        ids = torch.tensor([row.prompt])
        with torch.inference_mode():
            out = causal.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False, use_cache=True
            )
        found.append(out[0, ids.shape[1] :].tolist())
    return found


def _answers(causal: Any, folder: Path, rows: Sequence[Read], most: int) -> dict[str, JsonValue]:
    """What a folder answers by itself, and how fast."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ends = causal.generation_config.eos_token_id
    stops = set(ends if isinstance(ends, list) else [ends])
    began, cpu = time.monotonic(), time.process_time()
    found = _continued(causal, rows, most)
    seconds, spent = time.monotonic() - began, time.process_time() - cpu
    count = sum(map(len, found))
    return {
        "answers": [tokenizer.decode(each) for each in found],
        "memory_mb": round(causal.get_memory_footprint() / 1e6, 1),
        "cut": [len(each) >= most and each[-1] not in stops for each in found],
        "tokens_per_s": round(count / seconds, 2),
        "tokens_per_cpu_s": round(count / max(1e-9, spent), 2),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
