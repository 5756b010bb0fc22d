"""How often intervals hold the truth: every interval that a report prints, in worlds whose truth is known.

Each world draws conversations of rows that two systems answered, and `noria.stats.paired.compare`, the very function
that reports call, gives the intervals of the old system's value and of the gain. Nominal are 95 %. Beside them stands
the percentile bootstrap over conversations on the same rows.

    python benchmarks/coverage.py            writes benchmarks/results/coverage.json and coverage.png
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from noria.evaluation import metrics
from noria.stats.intervals import draws
from noria.stats.paired import compare
from noria.stats.statistic import FloatArray, OfSums, Statistic, mean, rows_of, summed

RESULTS = Path(__file__).parent / "results"
LEAST, MOST = 0.93, 0.97
TRUTH = 100_000
"""Conversations from which a truth is taken that no formula gives."""
QUICK = 3
"""Worlds of independent binary rows, where coverage jumps from number to number, are repeated so many times more."""
PEER = 1000
"""Resamples of the percentile bootstrap."""
Random = np.random.Generator
Drawn = tuple[FloatArray, FloatArray, np.ndarray]


@dataclass(frozen=True)
class World:
    """Draws both systems' rows for so many conversations; `truth` is the old value and the gain."""

    name: str
    draw: Callable[[Random, int], Drawn]
    statistic: Statistic
    truth: tuple[float, float] | None = None
    clusters: tuple[int, ...] = (20, 50, 200)


@dataclass(frozen=True)
class Row:
    """Coverage of one interval. Widths are medians, None where infinite; `warned` is the share with a warning."""

    world: str
    interval: str
    clusters: int
    rows: float
    coverage: float
    percentile: float | None
    width: float | None
    warned: float
    method: str
    verdict: str


def alone(clusters: int) -> np.ndarray:
    return np.arange(clusters)


def talks(random: Random, clusters: int, length: float = 4.0) -> np.ndarray:
    """Conversations of 1 + Poisson rows."""
    return np.repeat(np.arange(clusters), 1 + random.poisson(length - 1, clusters))


def beta(random: Random, share: float, alike: float, clusters: int) -> FloatArray:
    """A share for each conversation; `alike` is the correlation of two of its rows."""
    many = (1 - alike) / alike
    return random.beta(share * many, (1 - share) * many, clusters)


def right(share: float, alike: float, losing: float, winning: float) -> Callable[[Random, int], Drawn]:
    """Rows right or wrong; the new system turns some of the wrong ones right and of the right ones wrong."""

    def draw(random: Random, clusters: int) -> Drawn:
        member = talks(random, clusters) if alike else alone(clusters)
        chance = beta(random, share, alike, clusters)[member] if alike else share
        often = random.gamma(2.0, 0.5, clusters)[member].clip(0, 4) if alike else 1.0
        old = (random.random(len(member)) < chance).astype(float)
        turned = random.random(len(member)) < np.where(old == 1, losing, winning) * often
        return rows_of(old), rows_of(np.where(turned, 1 - old, old)), member

    return draw


def graded(random: Random, clusters: int) -> Drawn:
    """Grades from 1 to 5, alike within a conversation."""
    member = talks(random, clusters)
    taste, shift = random.normal(0, 0.8, clusters)[member], random.normal(0.2, 0.4, clusters)[member]
    noise = random.normal(0, 0.8, (2, len(member)))
    return (
        rows_of(np.clip(np.round(3.8 + taste + noise[0]), 1, 5)),
        rows_of(np.clip(np.round(3.8 + taste + shift + noise[1]), 1, 5)),
        member,
    )


def overlapping(changing: float) -> Callable[[Random, int], Drawn]:
    """Scores like token_f1: many zeros, the rest between 0 and 1; the new system changes a share of the answers."""

    def draw(random: Random, clusters: int) -> Drawn:
        member = talks(random, clusters, 3.0)
        lift = random.normal(0, 0.1, clusters)[member]

        def score(up: float) -> FloatArray:
            there = random.random(len(member)) < 0.8
            return np.where(there, np.clip(random.beta(2 + up, 2, len(member)) + lift, 0, 1), 0.0)

        old = score(0.0)
        return rows_of(old), rows_of(np.where(random.random(len(member)) < changing, score(0.6), old)), member

    return draw


def confused(random: Random, clusters: int) -> Drawn:
    """Statistics of f1_macro for three classes of unequal size."""
    member = talks(random, clusters)
    wanted = random.choice(3, len(member), p=[0.6, 0.3, 0.1])
    hard = random.normal(0, 0.15, clusters)[member]

    def answered(skill: float) -> FloatArray:
        hit = random.random(len(member)) < skill + hard
        given = np.where(hit, wanted, random.integers(0, 3, len(member)))
        rows, number = np.zeros((len(member), 3, 3)), np.arange(len(member))
        same = given == wanted
        rows[number[same], wanted[same], 0] = 1
        rows[number[~same], given[~same], 1] = 1
        rows[number[~same], wanted[~same], 2] = 1
        return rows.reshape(len(member), 9)

    return answered(0.6), answered(0.65), member


def translated(random: Random, clusters: int) -> Drawn:
    """Statistics of BLEU: matches fall with the order of the n-gram, good sentences are good at every order."""
    member = talks(random, clusters, 2.0)
    length = 6 + random.poisson(9, len(member))
    ease = random.normal(0, 0.3, clusters)[member]

    def answered(lift: float) -> FloatArray:
        given = np.maximum(5, length + random.integers(-3, 3, len(member)))
        chance = 1 / (1 + np.exp(-(0.6 + lift + ease + random.normal(0, 0.4, len(member)))))
        totals = np.stack([given - order for order in range(4)], axis=1)
        matches = random.binomial(totals, np.stack([chance**order for order in (1, 2, 3, 4)], axis=1))
        return np.column_stack([matches, totals, given, length]).astype(float)

    return answered(0.0), answered(0.1), member


def slow(spread: float) -> Callable[[Random, int], Drawn]:
    """Seconds, lognormal; the new system takes a fifth longer."""

    def draw(random: Random, clusters: int) -> Drawn:
        member = alone(clusters)
        own = random.normal(0, spread * math.sqrt(0.7), len(member))
        noise = random.normal(0, spread * math.sqrt(0.3), (2, len(member)))
        return rows_of(np.exp(own + noise[0])), rows_of(1.2 * np.exp(own + noise[1])), member

    return draw


def slow_rows(random: Random, clusters: int) -> Drawn:
    old, new, _ = slow(0.5)(random, 2 * clusters)
    return old[:, :1], new[:, :1], np.repeat(np.arange(clusters), 2)


def probable(random: Random, clusters: int) -> Drawn:
    """Statistics of perplexity: log-probability and tokens of each target."""
    member = talks(random, clusters, 2.0)
    tokens = 3 + random.poisson(12, len(member))
    topic = random.normal(0, 0.4, clusters)[member]
    per_token = np.exp(random.normal(0.5, 0.3, (2, len(member))) + topic)
    return (
        np.column_stack([-per_token[0] * tokens, tokens]),
        np.column_stack([-0.95 * per_token[1] * tokens, tokens]),
        member,
    )


def overconfident(random: Random, clusters: int) -> Drawn:
    """Statistics of ECE: answers are right less often than their confidence says."""
    member = talks(random, clusters, 3.0)

    def answered(too_much: float) -> FloatArray:
        sure = random.beta(4, 1.5, len(member))
        hit = random.random(len(member)) < np.clip(sure - too_much, 0, 1)
        rows = np.zeros((len(member), 11))
        rows[np.arange(len(member)), np.clip(np.ceil(sure * 10).astype(int) - 1, 0, 9)] = sure - hit
        rows[:, 10] = 1
        return rows

    return answered(0.2), answered(0.15), member


def worlds() -> list[World]:
    share, grade, few = mean(0, 1), mean(1, 5), (20, 50, 100)
    tail = math.exp(0.5 * 1.6448536)
    of = {
        name: metrics.find(name).statistic
        for name in ("f1_macro", "bleu", "perplexity", "ece", "latency_p50", "latency_p95")
    }
    return [
        World("binary, independent, 50 %", right(0.5, 0, 0.1, 0.2), share, (0.5, 0.05)),
        World("binary, independent, 80 %", right(0.8, 0, 0.1, 0.4), share, (0.8, 0.0)),
        World("binary, independent, 95 %", right(0.95, 0, 0.02, 0.3), share, (0.95, -0.004)),
        World("binary, conversations, 50 %", right(0.5, 0.3, 0.1, 0.2), share),
        World("binary, conversations, 80 %", right(0.8, 0.1, 0.1, 0.4), share),
        World("binary, conversations, 90 %", right(0.9, 0.3, 0.05, 0.4), share),
        World("binary, conversations, hardly a change", right(0.7, 0.3, 0.02, 0.02), share),
        World("grades 1 to 5, conversations", graded, grade),
        World("token_f1, conversations", overlapping(1.0), share),
        World("token_f1, a tenth of answers change", overlapping(0.1), share),
        World("f1_macro, conversations", confused, of["f1_macro"]),
        World("bleu, conversations", translated, of["bleu"]),
        World("ece, 0.2 too confident, conversations", overconfident, of["ece"]),
        World("perplexity, conversations", probable, of["perplexity"], clusters=few),
        World("latency, skewed", slow(0.5), mean(0), (math.exp(0.125), 0.2 * math.exp(0.125)), few),
        World("latency, very skewed", slow(1.0), mean(0), (math.exp(0.5), 0.2 * math.exp(0.5)), few),
        World("latency_p50", slow_rows, of["latency_p50"], (1.0, 0.2)),
        World("latency_p95", slow_rows, of["latency_p95"], (tail, 0.2 * tail)),
    ]


def truth_of(world: World) -> tuple[float, float]:
    if world.truth is not None:
        return world.truth
    old, new, _ = world.draw(np.random.default_rng(99), TRUTH)
    before = world.statistic.value(old)
    return before, world.statistic.value(new) - before


def measure(number: int, clusters: int, repetitions: int) -> list[Row]:
    """Coverage of the old system's interval and of the gain's in one world."""
    world = worlds()[number]
    repetitions *= QUICK if world.name.startswith("binary, independent") else 1
    before, gain = truth_of(world)
    random = np.random.default_rng([number, clusters])
    held, peer, widths, warned, counts, method = np.zeros(2), np.zeros(2), [], np.zeros(2), [], ""
    for _ in range(repetitions):
        old, new, member = world.draw(random, clusters)
        found = compare("coverage", old, new, [str(each) for each in member], world.statistic)
        low, high = found.before_bounds or (math.nan, math.nan)
        held += [low - 1e-6 <= before <= high + 1e-6, found.low - 1e-6 <= gain <= found.high + 1e-6]
        if isinstance(world.statistic, OfSums):
            peer += percentile(old, new, member, world.statistic, (before, gain))
        widths.append((high - low, found.high - found.low))
        told, values, *warnings = found.method.split("; ")
        of_gain = sum("conversation changed" in each for each in warnings)
        warned += [len(warnings) > of_gain, of_gain > 0 or (told == "gain: MOVER" and bool(warnings))]
        method = f"{values}; {told}"
        counts.append(len(member))
    widths_of = np.median(np.asarray(widths), axis=0)
    methods = [part.split(": ")[1] for part in method.split("; ")]
    return [
        Row(
            world=world.name,
            interval=kind,
            clusters=clusters,
            rows=round(float(np.mean(counts)), 1),
            coverage=round(float(held[place]) / repetitions, 4),
            percentile=round(float(peer[place]) / repetitions, 4) if isinstance(world.statistic, OfSums) else None,
            width=round(float(widths_of[place]), 4) if math.isfinite(widths_of[place]) else None,
            warned=round(float(warned[place]) / repetitions, 3),
            method=methods[place],
            verdict=verdict(float(held[place]) / repetitions),
        )
        for place, kind in enumerate(("value", "gain"))
    ]


def percentile(
    old: FloatArray, new: FloatArray, member: np.ndarray, statistic: OfSums, truth: tuple[float, float]
) -> list[bool]:
    """Whether the percentile bootstrap's intervals hold the truth."""
    clusters = int(member.max()) + 1
    drawn = draws(clusters, PEER)
    values = statistic.of(drawn @ summed(old, member, clusters))
    gains = statistic.of(drawn @ summed(new, member, clusters)) - values
    ends = [np.quantile(each, [0.025, 0.975]) for each in (values, gains)]
    return [bool(low - 1e-6 <= true <= high + 1e-6) for (low, high), true in zip(ends, truth, strict=True)]


def verdict(coverage: float) -> str:
    return "narrow" if coverage < LEAST else "wide" if coverage > MOST else "covers"


def draw(rows: list[Row], file: Path) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.world for row in rows))
    figure = Figure(figsize=(10, 0.6 + 0.36 * len(names)), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("value", "gain"), strict=True):
        axes.axvspan(LEAST, MOST, color="tab:green", alpha=0.15)
        axes.axvline(0.95, color="tab:green", linewidth=1)
        for row in (each for each in rows if each.interval == kind):
            color = {"covers": "tab:green", "wide": "tab:blue", "narrow": "tab:red"}[row.verdict]
            size = {20: 20, 50: 45, 100: 90, 200: 90}[row.clusters]
            axes.scatter(row.coverage, len(names) - names.index(row.world), s=size, color=color, alpha=0.7)
        axes.set_title(f"interval of the {kind}")
        axes.set_xlim(0.88, 1.005)
        axes.grid(axis="x", alpha=0.3)
        axes.set_yticks([len(names) - place for place in range(len(names))], names)
    figure.supxlabel("coverage of nominal 95 %; the larger a dot, the more conversations (20 to 200)", fontsize=10)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repetitions", type=int, default=1000)
    given = options.parse_args()
    began = time.perf_counter()
    jobs = [(number, clusters) for number, world in enumerate(worlds()) for clusters in world.clusters]
    with ProcessPoolExecutor(2) as pool:
        work = [pool.submit(measure, *job, given.repetitions) for job in jobs]
        rows = [row for each in work for row in each.result()]
    for row in rows:
        print(
            f"{row.world:40} {row.interval:6} {row.clusters:4} conversations {row.coverage:.3f} {row.verdict:7} "
            f"percentile {row.percentile} width {row.width} warned {row.warned:5.3f} {row.method}"
        )
    counts = {each: sum(row.verdict == each for row in rows) for each in ("covers", "wide", "narrow")}
    seconds = round(time.perf_counter() - began, 1)
    peers = [row.percentile for row in rows if row.percentile is not None]
    print(f"percentile bootstrap: {sum(each < LEAST for each in peers)} of {len(peers)} narrow, least {min(peers)}")
    print(f"\n{counts} of {len(rows)} intervals in {seconds} s, {given.repetitions} repetitions each")
    RESULTS.mkdir(exist_ok=True)
    told = {
        "nominal": 0.95,
        "repetitions": given.repetitions,
        "standard_error": round(math.sqrt(0.95 * 0.05 / given.repetitions), 4),
        "seconds": seconds,
        "verdicts": counts,
        "rows": [asdict(row) for row in rows],
    }
    (RESULTS / "coverage.json").write_text(json.dumps(told, indent=1) + "\n")
    draw(rows, RESULTS / "coverage.png")


if __name__ == "__main__":
    main()
