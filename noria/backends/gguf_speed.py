"""One short measurement of a GGUF file in llama.cpp: memory, speed, and what it answers when it is let go."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from noria.backends.llamacpp import LlamaCpp, LlamaEngine
from noria.errors import Unavailable
from noria.messages import Message
from noria.settings import EngineSettings

TIMES, TOKENS = 3, 48
"""So many runs of so many tokens."""


@dataclass(frozen=True, slots=True)
class Speed:
    """`tokens_per_s` is the median of `TIMES` runs at one request; `memory_mb` (MB, resident) is after them.

    `answers` are texts with whether the limit of tokens cut them off. None is what this machine does not tell.
    """

    tokens_per_s: float
    tokens_per_cpu_s: float | None
    memory_mb: float | None
    answers: tuple[tuple[str, bool], ...]


def measure(model: Path, settings: EngineSettings, asked: Sequence[Sequence[Message]], most: int, log: Path) -> Speed:
    """Start llama.cpp on the file with one slot and measure; raises Invalid, Unavailable.

    Decoding does not stop at the end token here, prompts are not remembered, and the first run is thrown away.
    """
    alone = settings.model_copy(update={"kind": "llamacpp", "model": str(model), "slots": 1, "url": None})
    engine = LlamaCpp().start(alone, {}, log)
    try:
        answers = []
        for messages in asked:
            given = engine.answer(messages, None, most, ())
            answers.append((given.text, given.finish_reason == "length"))
        runs = [_run(engine) for _ in range(TIMES + 1)][1:]
        spent = [run[1] for run in runs if run[1] is not None]
        return Speed(
            tokens_per_s=round(statistics.median(run[0] for run in runs), 1),
            tokens_per_cpu_s=round(statistics.median(spent), 1) if spent else None,
            memory_mb=_memory(engine),
            answers=tuple(answers),
        )
    finally:
        engine.close()


def _run(engine: LlamaEngine) -> tuple[float, float | None]:
    """Tokens a second, and a second of processor time, of one request."""
    endpoint = engine.endpoint
    body = {
        "prompt": "Once upon a time", "n_predict": TOKENS, "ignore_eos": True, "cache_prompt": False, "temperature": 0,
        "seed": 0,
    }  # fmt: skip
    before, began = _cpu(engine), time.monotonic()
    try:
        with httpx.Client(trust_env=False, timeout=600.0) as client:
            reply = client.post(
                endpoint.url.removesuffix("/v1") + "/completion",
                json=body,
                headers={"Authorization": f"Bearer {endpoint.key}"},
            ).raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"llama.cpp did not answer: {error}", "try again") from error
    seconds, after = time.monotonic() - began, _cpu(engine)
    told: dict[str, Any] = reply.json().get("timings") or {}
    # llama.cpp counts decoding alone, without reading the prompt.
    speed = float(told.get("predicted_per_second") or TOKENS / seconds)
    return speed, TOKENS / (after - before) if before is not None and after is not None and after > before else None


def _cpu(engine: LlamaEngine) -> float | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    times = psutil.Process(engine.process.pid).cpu_times()
    return float(times.user + times.system)


def _memory(engine: LlamaEngine) -> float | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    return round(psutil.Process(engine.process.pid).memory_info().rss / 1e6, 1)
