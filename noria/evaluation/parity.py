"""Is what the engine serves what the trainer made?"""

from __future__ import annotations

import json
from pathlib import Path

from noria.ports import Engine, Progress
from noria.types import Metrics, Ref

CHANGED_BY = 0.01
"""Nats by which a log-probability must move to count as changed; repeated base answers differ by less."""


def check(engine: Engine, adapter: Ref, folder: Path, progress: Progress) -> Metrics:
    """Compare the engine's next tokens with those the trainer noted in `probes.json`.

    Greedy texts diverge after a while even where all is well, so single next tokens are compared, after prefixes
    that are the same for both. Returns `parity` (share of equal next tokens) and `changed` (share of the first
    probes on which the engine answers otherwise without the adapter).
    """
    probes = json.loads((folder / "probes.json").read_text())
    equal = changed = compared = 0
    for done, probe in enumerate(probes, 1):
        token, _ = engine.next_token(probe["prefix"], adapter)
        equal += token == probe["token"]
        progress.update("checking the served adapter", done, len(probes))
    for probe in probes:
        if "base_token" not in probe:
            continue
        with_it = engine.next_token(probe["prefix"], adapter)
        without = engine.next_token(probe["prefix"], None)
        changed += with_it[0] != without[0] or abs(with_it[1] - without[1]) > CHANGED_BY
        compared += 1
    return {"parity": round(equal / max(1, len(probes)), 4), "changed": round(changed / max(1, compared), 4)}
