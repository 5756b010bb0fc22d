"""How near each contender's weights are to those of the model that was given: the same measure as `noria quantize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from noria.apps import shrink_table
from noria.apps.bench_lineup import Contender
from noria.apps.shrink_rows import rows_of
from noria.apps.shrink_table import Entry
from noria.errors import NoriaError
from noria.ports import Progress

UNMEASURED: Final[Mapping[str, Any]] = {"agreement": None, "kl": None, "perplexity": None}


def measured(
    contenders: Sequence[Contender], source: Path | None, work: Path, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Agreement, divergence (nats) and perplexity by the contender's label; empty where they cannot be computed.

    Distributions are those of the weights in float32, after the same tokens: what an engine rounds while it computes
    is not in them, and shows in `likeness`.
    """
    here = [each for each in contenders if each.weights is not None and _as_stored(each)]
    if source is None or not here or shrink_table.unreadable(source):
        return {}
    weights = list(dict.fromkeys([source.resolve(), *(each.weights.resolve() for each in here if each.weights)]))
    entries = [Entry(each.name, each, {}) for each in weights]
    told: list[dict[str, Any]] = [{} for _ in entries]
    try:
        shrink_table.scored(entries, told, rows_of(None, None, None), work / "scores", progress, answers=0)
    except (NoriaError, ValueError) as error:
        # Models of two vocabularies, or no torch: the speeds stand by themselves.
        return {each.label: {**UNMEASURED, "unmeasured": str(error)} for each in here}
    by_weights = dict(zip(weights, told, strict=True))
    return {
        each.label: {name: by_weights[each.weights.resolve()][name] for name in UNMEASURED}
        for each in here
        if each.weights is not None
    }


def _as_stored(of: Contender) -> bool:
    """Whether it computes with the weights as they lie there, and not with what it makes of them at its start."""
    gguf = of.weights is not None and of.weights.is_file()
    return gguf or (of.settings.dtype in ("auto", "float32") and of.settings.quantization is None)
