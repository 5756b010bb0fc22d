"""Next tokens of the trained model, by which an engine that serves it can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from pydantic import JsonValue

from noria.backends.peft_job import Row

PROBE_ROWS, PROBES_PER_ROW, BASE_PROBES = 20, 10, 20
Likeliest = list[tuple[int, float]]


def probe_rows(plan: Sequence[Sequence[int]], rows: dict[int, Row]) -> list[Row]:
    """The last distinct rows of the plan: what the trained model saw most recently."""
    backwards = dict.fromkeys(number for step in reversed(plan) for number in reversed(step))
    return [rows[number] for number in list(backwards)[:PROBE_ROWS]]


def untrained(causal: Any, rows: Sequence[Row], without: AbstractContextManager[object]) -> list[Likeliest]:
    """What the base says in the context `without`, row by row, as far as probes need it."""
    found: list[Likeliest] = []
    with without:
        for row in rows:
            if sum(len(each) for each in found) >= BASE_PROBES:
                break
            found.append(_next_tokens(causal, row, _spread(row.learned)))
    return found


def probes(causal: Any, rows: Sequence[Row], plain: Sequence[Likeliest]) -> list[dict[str, JsonValue]]:
    """Next tokens after known prefixes.

    Each probe has `prefix` (token ids), `token` (the likeliest next id) and `logprob` (natural, float32); the first
    ones have `base_token` and `base_logprob` too, those of the base in `plain`.
    """
    found: list[dict[str, JsonValue]] = []
    for number, row in enumerate(rows):
        places = _spread(row.learned)
        for at, (place, (token, logprob)) in enumerate(zip(places, _next_tokens(causal, row, places), strict=True)):
            probe: dict[str, JsonValue] = {"prefix": list(row.tokens[:place]), "token": token, "logprob": logprob}
            if number < len(plain):
                probe["base_token"], probe["base_logprob"] = plain[number][at]
            found.append(probe)
    return found


def _spread(places: Sequence[int]) -> list[int]:
    """At most `PROBES_PER_ROW` of the places, evenly spread, first and last among them."""
    if len(places) <= PROBES_PER_ROW:
        return list(places)
    last = len(places) - 1
    return [places[round(number * last / (PROBES_PER_ROW - 1))] for number in range(PROBES_PER_ROW)]


def _next_tokens(causal: Any, row: Row, places: Sequence[int]) -> Likeliest:
    import torch

    causal.eval()
    # Not inference_mode: weights that are gathered in it could not be trained with afterwards.
    with torch.no_grad():
        ids = torch.tensor([row.tokens], device=causal.lm_head.weight.device)
        hidden = causal.model(input_ids=ids, use_cache=False).last_hidden_state[0]
        logits = causal.lm_head(hidden[[place - 1 for place in places]]).float()
        best = torch.log_softmax(logits, dim=-1).max(dim=-1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(token, round(logprob, 6)) for token, logprob in pairs]
