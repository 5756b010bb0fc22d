"""Is what the engine serves what the trainer made?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noria import adapters
from noria.ports import Engine, Progress
from noria.types import Form, Message, Metrics, Ref

CHANGED_BY = 0.01
"""Nats by which a log-probability must move to count as changed; repeated base answers differ by less."""


def check(engine: Engine, adapter: Ref, folder: Path, progress: Progress) -> Metrics:
    """Compare the engine's next tokens with those the trainer noted in `probes.json`.

    Greedy texts diverge after a while even where all is well, so single next tokens are compared, after prefixes
    that are the same for both. Returns `parity` (share of equal next tokens) and `changed` (share of the first
    probes on which the engine answers otherwise without the adapter); nothing where the trainer has noted none.
    """
    file = folder / "probes.json"
    if not file.is_file():
        return {}
    probes = json.loads(file.read_text())
    if adapters.kind_of(folder) == "head":
        return _classes(engine, adapter, probes, progress)
    tuned = []
    for done, probe in enumerate(probes, 1):
        tuned.append(engine.next_token(probe["prefix"], adapter))
        progress.update("checking the served adapter", done, len(probes))
    # All requests without the adapter come last: switching back and forth would empty the engine's cache each time.
    plain = [engine.next_token(probe["prefix"], None) for probe in probes if "base_token" in probe]
    equal = sum(token == probe["token"] for (token, _), probe in zip(tuned, probes, strict=True))
    changed = sum(
        before[0] != after[0] or abs(before[1] - after[1]) > CHANGED_BY
        for before, after in zip(plain, tuned, strict=False)
    )
    return {"parity": round(equal / max(1, len(probes)), 4), "changed": round(changed / max(1, len(plain)), 4)}


def _classes(engine: Engine, adapter: Ref, probes: Sequence[Mapping[str, Any]], progress: Progress) -> Metrics:
    """As `check` for a head: its classes of whole texts, with their log-probabilities."""

    def said(text: str, by: Ref | None) -> tuple[str, float]:
        given = engine.answer([Message(role="user", content=text)], by, 64, (), Form(choices=1))
        return given.text, given.tokens[0][0][1] if given.tokens else 0.0

    equal = changed = 0
    for done, probe in enumerate(probes, 1):
        answer, logprob = said(probe["text"], adapter)
        equal += answer == probe["answer"] and abs(logprob - probe["logprob"]) <= CHANGED_BY
        before, earlier = said(probe["text"], None)
        changed += before != answer or abs(earlier - logprob) > CHANGED_BY
        progress.update("checking the served head", done, len(probes))
    count = max(1, len(probes))
    return {"parity": round(equal / count, 4), "changed": round(changed / count, 4)}
