"""What engines count, in Prometheus' text form, as one record: each make has names of its own for the same things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from noria.errors import Invalid
from noria.types import Load


@dataclass(frozen=True, slots=True)
class Names:
    """Names of an engine's metrics behind `prefix`; empty for what it does not count.

    `first_token` and `token` are histograms or summaries in seconds, the others gauges and counters, of which those of
    several models are added up; `cache` is a share, of which the fullest counts. `token_total` is for engines that
    count the seconds of all tokens instead: (seconds, tokens).
    """

    prefix: str
    waiting: str = ""
    running: str = ""
    first_token: str = ""
    token: str = ""
    cache: str = ""
    prompt_tokens: str = ""
    completion_tokens: str = ""
    token_total: tuple[str, str] = ("", "")


_VLLM: Final = Names(
    prefix="vllm:", waiting="num_requests_waiting", running="num_requests_running",
    first_token="time_to_first_token_seconds", token="inter_token_latency_seconds", cache="kv_cache_usage_perc",
    prompt_tokens="prompt_tokens_total", completion_tokens="generation_tokens_total",
)  # fmt: skip
NAMES: Final[Mapping[str, Names]] = {
    "vllm": _VLLM,
    "aphrodite": Names(
        prefix="aphrodite:", waiting=_VLLM.waiting, running=_VLLM.running, first_token=_VLLM.first_token,
        token=_VLLM.token, cache=_VLLM.cache, prompt_tokens=_VLLM.prompt_tokens,
        completion_tokens=_VLLM.completion_tokens,
    ),
    "sglang": Names(
        prefix="sglang:", waiting="num_queue_reqs", running="num_running_reqs",
        first_token="time_to_first_token_seconds", token="inter_token_latency_seconds", cache="token_usage",
        prompt_tokens="prompt_tokens_total", completion_tokens="generation_tokens_total",
    ),
    "lmdeploy": Names(
        prefix="lmdeploy:", waiting="num_requests_waiting", running="num_requests_running",
        first_token="time_to_first_token_seconds",
    ),
    "tgi": Names(
        prefix="tgi_", waiting="queue_size", running="batch_current_size",
        token="request_mean_time_per_token_duration",
    ),
    "llamacpp": Names(
        prefix="llamacpp:", waiting="requests_deferred", running="requests_processing",
        prompt_tokens="prompt_tokens_total", completion_tokens="tokens_predicted_total",
        token_total=("tokens_predicted_seconds_total", "tokens_predicted_total"),
    ),
    "fake": Names(prefix="fake:", waiting="waiting", running="running"),
}  # fmt: skip


def read(text: str, names: Names) -> Load:
    """The record of what an engine's `/metrics` says; raises Invalid for what is not in Prometheus' form.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    from prometheus_client.parser import text_string_to_metric_families

    samples: dict[str, list[float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(names.prefix):
                    samples.setdefault(sample.name.removeprefix(names.prefix), []).append(sample.value)
    except ValueError as error:
        raise Invalid(f"these are no metrics: {error}", "look at the engine's /metrics") from error

    def total(name: str) -> float | None:
        return sum(samples[name]) if name in samples else None

    def mean(name: str) -> float | None:
        return _ratio(total(f"{name}_sum"), total(f"{name}_count"))

    seconds, tokens = names.token_total
    return Load(
        waiting=total(names.waiting),
        running=total(names.running),
        first_token_seconds=mean(names.first_token),
        token_seconds=_ratio(total(seconds), total(tokens)) if seconds else mean(names.token),
        cache=_most(samples.get(names.cache, ())),
        prompt_tokens=total(names.prompt_tokens),
        completion_tokens=total(names.completion_tokens),
    )


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _most(values: Iterable[float]) -> float | None:
    return max(values, default=None)
