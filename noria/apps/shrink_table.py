"""The table that quantizing and pruning end in: size, memory and speed beside what is left of the source."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noria.apps.shrink_rows import Rows
from noria.backends import gguf_speed, shrink
from noria.backends.gguf_header import read_header
from noria.backends.scratch import temporary
from noria.backends.shrink_job import ScoreJob
from noria.evaluation import agreement, garbage
from noria.ports import Progress
from noria.settings import EngineSettings

LENGTH, ANSWERS, MOST = 24, 6, 64
"""Tokens of a greedy continuation; answers that are let go, and tokens of such an answer at the most."""
COLUMNS = (
    "precision", "engine", "size_mb", "memory_mb", "tokens_per_s", "agreement", "kl", "kl_high", "perplexity", "garbage"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the table: a GGUF file or a folder; `more` is told beside what is measured."""

    precision: str
    model: Path
    more: Mapping[str, Any]


def table(entries: Sequence[Entry], rows: Rows, engine: EngineSettings, progress: Progress) -> list[dict[str, Any]]:
    """Measure every model; the first is the source that the others are compared with.

    Speed and answers of GGUF files are llama.cpp's, those of folders Transformers'. Distributions of all of them are
    computed with the dequantized weights in float32, exactly and over the whole vocabulary: llama.cpp rounds what
    goes into a layer, too, and that is not in it. What cannot be read so (another architecture) has no such values.
    """
    told: list[dict[str, Any]] = []
    asked = [row.messages for row in rows.measured if row.messages][:ANSWERS]
    with temporary("noria-shrink.") as work:
        for number, entry in enumerate(entries):
            progress.update("speed", number, len(entries), entry.precision)
            told.append({"precision": entry.precision, "size_mb": round(_size(entry.model) / 1e6, 2), **entry.more})
            if entry.model.is_file():
                found = gguf_speed.measure(entry.model, engine, asked, MOST, work / "engine.log")
                told[-1] |= {
                    "engine": "llamacpp", "memory_mb": found.memory_mb, "tokens_per_s": found.tokens_per_s,
                    "tokens_per_cpu_s": found.tokens_per_cpu_s, "garbage": _garbage(found.answers),
                }  # fmt: skip
        progress.update("speed", len(entries), len(entries))
        if why := unreadable(entries[0].model):
            for each in told:
                each |= {"agreement": None, "kl": None, "kl_high": None, "perplexity": None, "unmeasured": why}
        else:
            scored(entries, told, rows, work / "scores", progress)
    return told


def unreadable(model: Path) -> str:
    """Why the distributions of a GGUF file cannot be computed; empty where they can."""
    if model.is_dir():
        return ""
    with model.open("rb") as file:
        architecture = read_header(file).fields.get("general.architecture")
    if architecture == "llama":
        return ""
    return f"agreement, divergence and perplexity are known for the architecture llama, not for '{architecture}'"


def scored(
    entries: Sequence[Entry], told: list[dict[str, Any]], rows: Rows, out: Path, progress: Progress,
    answers: int = ANSWERS,
) -> None:  # fmt: skip
    """Add agreement, divergence and perplexity to what is told of each; `out` is a folder for the distributions."""
    import numpy as np

    job = ScoreJob(
        models=tuple(entry.model.resolve() for entry in entries),
        rows=rows.measured, out=out, length=LENGTH, answers=answers, most=MOST,
    )  # fmt: skip
    found = shrink.run(job, progress)
    source = np.load(out / "logits-0.npy", mmap_mode="r")
    for number, (each, own) in enumerate(zip(told, found["models"], strict=True)):
        each["perplexity"] = _rounded(agreement.perplexity(np.load(out / f"nll-{number}.npy")), 4)
        near = agreement.fidelity(source, np.load(out / f"logits-{number}.npy", mmap_mode="r"))
        each |= {
            "agreement": round(near.agreement, 4), "kl": _rounded(near.kl, 6), "kl_high": _rounded(near.kl_high, 6),
            "positions": near.positions,
        }  # fmt: skip
        if own.get("answers"):
            each |= {
                "engine": "transformers", "memory_mb": own["memory_mb"], "tokens_per_s": own["tokens_per_s"],
                "tokens_per_cpu_s": own["tokens_per_cpu_s"],
                "garbage": _garbage([*zip(own["answers"], own["cut"], strict=True)]),
            }  # fmt: skip


def _rounded(value: float, digits: int) -> float | None:
    """None for what JSON has no number for, such as the perplexity of a model that is broken."""
    return round(value, digits) if math.isfinite(value) else None


def _garbage(answers: Sequence[tuple[str, bool]]) -> dict[str, int]:
    return garbage.count(answers).model_dump()


def _size(model: Path) -> int:
    if model.is_file():
        return model.stat().st_size
    return sum(each.stat().st_size for each in model.rglob("*.safetensors"))


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row as a person reads it."""
    return [_cell(name, row.get(name)) for name in COLUMNS]


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "not measured"
    if name == "garbage":
        return f"{value['empty'] + value['repeated']} of {value['answers']} ({value['cut']} cut)"
    if name in ("kl", "kl_high"):
        return f"{value:.4f}"
    return f"{value:.1%}" if name == "agreement" else str(value)


def keep(told: Mapping[str, Any], out: Path) -> None:
    """Write the table beside what was made."""
    (out / "shrink.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
