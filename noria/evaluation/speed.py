"""How fast answers came, and whether they were any: rounds of requests become one row of `noria bench`.

A row whose answers are invalid by more than a tenth is void: it has no speed, however soon its answers came.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from noria.engines import Reply
from noria.evaluation import garbage
from noria.evaluation.scenarios import Ask

VOID: Final = 0.1
"""Most invalid answers of a row, as a share."""
SPEEDS: Final = (
    "total_s", "mean_s", "p95_s", "ttft_ms", "itl_ms", "tokens_per_s", "tokens_per_s_low", "tokens_per_s_high",
    "tokens_per_cpu_s", "requests_per_s", "joules_per_token",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Round:
    """One time all requests: `seconds` from the first sent to the last answered, and what they took meanwhile.

    `cpu` are the engine's CPU seconds, `others` the cores that other programs kept busy on average.
    """

    asks: tuple[Ask, ...]
    replies: tuple[Reply, ...]
    seconds: float
    cpu: float | None = None
    others: float | None = None
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """What a valid answer is. `exactly`: the engine was told to write so many tokens, whatever it has to say.

    `natural` are words of its answers where it may end, by what was asked: beyond them nothing is said of the form.
    """

    max_tokens: int
    exactly: bool = False
    natural: Mapping[Ask, int] | None = None


def invalid(ask: Ask, reply: Reply, check: Check) -> str:
    """Why an answer does not count; empty for a valid one."""
    if reply.error:
        return "error"
    if ask.texts:
        return "" if reply.vectors == len(ask.texts) else "vectors"
    if reply.finish not in ("stop", "length", "eos"):
        return "finish"
    if reply.tokens is None:
        return "uncounted"
    if reply.tokens > check.max_tokens or (check.exactly and reply.tokens != check.max_tokens):
        return "length"
    words = reply.text.split()
    told = (check.natural or {}).get(ask) if check.exactly else None
    text = reply.text if told is None or told >= len(words) else " ".join(words[:told])
    found = garbage.fault(text)
    return found if found in ("empty", "repeated") else ""


def right(ask: Ask, reply: Reply) -> bool:
    """Whether an answer holds what is expected of it."""
    return ask.expects.casefold() in reply.text.casefold()


def row(rounds: Sequence[Round], check: Check) -> dict[str, Any]:
    """The figures of one engine, precision, scenario and concurrency; medians over rounds, or over all answers.

    Times of requests and of first tokens are those of valid answers only, but totals hold all requests of a round.
    Tokens per second are tokens of valid answers by the round's whole time. Void rows have no speeds.
    """
    pairs = [(ask, reply) for each in rounds for ask, reply in zip(each.asks, each.replies, strict=True)]
    faults = [invalid(ask, reply, check) for ask, reply in pairs]
    valid = [reply for (_, reply), fault in zip(pairs, faults, strict=True) if not fault]
    told = _speeds(rounds, valid, check)
    bad = len(pairs) - len(valid)
    void = bad > VOID * len(pairs)
    expected = [right(ask, reply) for ask, reply in pairs if ask.expects]
    return {
        "requests": len(rounds[0].asks),
        "rounds": len(rounds),
        **(dict.fromkeys(SPEEDS) if void else told),
        "invalid": bad,
        "faults": {name: faults.count(name) for name in sorted({*faults} - {""})},
        "void": void,
        "tokens": sum(reply.tokens or 0 for reply in valid),
        "prompt_tokens": _median([reply.prompt_tokens for reply in valid], 0),
        "cached_tokens": sum(reply.cached or 0 for reply in valid),
        "cut": sum(reply.finish == "length" for reply in valid),
        "right": sum(expected) if expected else None,
        "expected": len(expected) or None,
        "places": _places(pairs),
        "others_cores": _median([each.others for each in rounds], 2),
    }


def _speeds(rounds: Sequence[Round], valid: Sequence[Reply], check: Check) -> dict[str, Any]:
    rates, efforts, energies = [], [], []
    for each in rounds:
        fine = [one for ask, one in zip(each.asks, each.replies, strict=True) if not invalid(ask, one, check)]
        # Of vectors the texts' own tokens are what was computed.
        tokens = sum((one.prompt_tokens if _embedded(one) else one.tokens) or 0 for one in fine)
        rates.append(tokens / each.seconds)
        efforts.append(tokens / each.cpu if each.cpu else None)
        energies.append(each.joules / tokens if each.joules is not None and tokens else None)
    times = [reply.seconds for reply in valid]
    return {
        "total_s": _median([each.seconds for each in rounds], 4),
        "mean_s": round(statistics.fmean(times), 4) if times else None,
        "p95_s": percentile(times, 0.95),
        "ttft_ms": _median([None if reply.first is None else 1000 * reply.first for reply in valid], 2),
        "itl_ms": _median([between(reply) for reply in valid], 3),
        "tokens_per_s": _median(rates, 2),
        "tokens_per_s_low": round(min(rates), 2),
        "tokens_per_s_high": round(max(rates), 2),
        "tokens_per_cpu_s": _median(efforts, 2),
        "requests_per_s": _median([len(each.asks) / each.seconds for each in rounds], 3),
        "joules_per_token": _median(energies, 4),
    }


def _embedded(reply: Reply) -> bool:
    """Whether it answers texts with vectors."""
    return reply.vectors > 0


def between(reply: Reply) -> float | None:
    """Mean milliseconds between two tokens of an answer, after its first."""
    if reply.first is None or reply.tokens is None or reply.tokens < 2:
        return None
    return 1000 * (reply.seconds - reply.first) / (reply.tokens - 1)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed (nearest rank); None without any."""
    if not values:
        return None
    ranked = sorted(values)
    place = max(0, -int(-share * len(ranked) // 1) - 1)
    return round(ranked[place], 4)


def alike(one: str, other: str) -> float:
    """Share of words, in [0, 1], that two answers have in common before they differ for the first time."""
    a, b = one.split(), other.split()
    same = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    longest = max(len(a), len(b))
    return same / longest if longest else 1.0


def likeness(own: Mapping[Ask, str], reference: Mapping[Ask, str]) -> float | None:
    """Mean of `alike` over what both were asked; None where that is nothing."""
    both = own.keys() & reference.keys()
    return round(statistics.fmean(alike(own[ask], reference[ask]) for ask in both), 4) if both else None


def fastest(rows: Sequence[Mapping[str, Any]]) -> set[int]:
    """Numbers of the rows with most tokens a second among those of their scenario and concurrency; void ones never."""
    best: dict[tuple[Any, Any], int] = {}
    for number, each in enumerate(rows):
        key = each["scenario"], each["concurrency"]
        if each["tokens_per_s"] is not None and (
            key not in best or each["tokens_per_s"] > rows[best[key]]["tokens_per_s"]
        ):
            best[key] = number
    return {*best.values()}


def compare(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows that both runs have, with ratios after by before; None where one is void or did not tell."""
    old = {key_of(each): each for each in before}
    return [
        {
            **dict(zip(KEY, key_of(each), strict=True)),
            "before": old[key_of(each)]["tokens_per_s"],
            "after": each["tokens_per_s"],
            "tokens_per_s": _ratio(old[key_of(each)]["tokens_per_s"], each["tokens_per_s"]),
            "ttft_ms": _ratio(old[key_of(each)]["ttft_ms"], each["ttft_ms"]),
            "peak_gib": _ratio(old[key_of(each)]["peak_gib"], each["peak_gib"]),
            "within_spread": _within(old[key_of(each)], each),
        }
        for each in after
        if key_of(each) in old
    ]


KEY: Final = ("engine", "precision", "scenario", "concurrency")


def key_of(each: Mapping[str, Any]) -> tuple[Any, ...]:
    """By what a row of one run is found in another."""
    return tuple(each[name] for name in KEY)


def _within(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool | None:
    """Whether the rounds of both overlap: then nothing is shown."""
    if old["tokens_per_s"] is None or new["tokens_per_s"] is None:
        return None
    below = new["tokens_per_s_high"] < old["tokens_per_s_low"]
    return not (below or new["tokens_per_s_low"] > old["tokens_per_s_high"])


def _ratio(before: float | None, after: float | None) -> float | None:
    return round(after / before, 4) if before and after is not None else None


def _places(pairs: Sequence[tuple[Ask, Reply]]) -> dict[str, list[int]] | None:
    """Right answers and answers by the place of a needle."""
    found: dict[str, list[int]] = {}
    for ask, reply in pairs:
        if ask.place:
            hits = found.setdefault(ask.place, [0, 0])
            hits[0] += right(ask, reply)
            hits[1] += 1
    return found or None


def _median(values: Sequence[float | None], digits: int) -> float | None:
    told = [value for value in values if value is not None]
    return round(statistics.median(told), digits) if told else None
