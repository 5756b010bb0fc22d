"""What an answer takes: time, tokens, money."""

from __future__ import annotations

from noria.evaluation.metrics.metric import Metric, by_row, mean_of
from noria.stats.statistic import Quantile


def latency(seconds: float) -> float:
    """Seconds from asking the engine to the last byte of its answer, without waiting for a free place; mean."""
    return seconds


def tokens(completion_tokens: int) -> float:
    """Tokens of an answer as the engine counts them; mean."""
    return completion_tokens


def cost(cost: float) -> float:
    """What a thousand answers like these cost at the engine's prices for prompt and completion tokens."""
    return 1000 * cost


def _latency_at(percent: int) -> Metric:
    return Metric(
        name=f"latency_p{percent}",
        definition=f"Seconds within which {percent} % of the answers are there, measured as in latency.",
        source="measured by noria",
        reads=("seconds",),
        unit="seconds",
        higher_is_better=False,
        statistic=Quantile(percent / 100, low=0),
        rows=by_row(lambda answered: (answered.seconds or 0.0,)),
    )


_MEASURED = "measured by noria"
LATENCY = mean_of(latency, low=0, higher_is_better=False, unit="seconds", source=_MEASURED)
LATENCY_P50 = _latency_at(50)
LATENCY_P95 = _latency_at(95)
TOKENS = mean_of(tokens, low=0, higher_is_better=False, unit="tokens per answer", source="counted by the engine")
COST = mean_of(
    cost, low=0, higher_is_better=False, unit="currency per 1000 answers", source="engines.NAME.price in noria.toml"
)
