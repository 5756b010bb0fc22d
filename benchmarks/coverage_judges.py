"""Do the intervals of judges cover what they say? python benchmarks/coverage_judges.py [REPETITIONS]

Simulated people and judges: biased, noisy, with a bias for length, on yes or no and on scores from 1 to 5, with one row
a conversation and with several. Each case gives the share of repetitions in which a nominal 95 % interval covers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noria.stats import clustered
from noria.stats.agreement import cohen_kappa
from noria.stats.prediction_powered import Judged, Labelled, mean, rogan_gladen

Numbers = npt.NDArray[np.float64]
Simulate = Callable[[np.random.Generator, int], float]
LABELS, OTHERS = 100, 1000


@dataclass(frozen=True)
class World:
    """Rows of `per` to a conversation; the judge is off by `bias` steps on average, and by chance `noise` besides."""

    ordinal: bool
    per: int
    level: float
    bias: float
    noise: float

    @property
    def bounds(self) -> tuple[float, float]:
        return (1.0, 5.0) if self.ordinal else (0.0, 1.0)

    def draw(self, rng: np.random.Generator, rows: int) -> tuple[Numbers, Numbers, list[str]]:
        """What people say, what the judge says, and the conversation of each row."""
        group = np.arange(rows) // self.per
        shared = rng.normal(0, 0.8, group.max() + 1)[group] if self.per > 1 else np.zeros(rows)
        names = [str(each) for each in group]
        if self.ordinal:
            human = np.clip(np.round(3 + self.level + shared + rng.normal(0, 1, rows)), 1, 5)
            judged = np.clip(np.round(human + self.bias + rng.normal(0, self.noise, rows)), 1, 5)
            return human, judged, names
        human = (rng.random(rows) < 1 / (1 + np.exp(-(self.level + shared)))).astype(float)
        flipped = np.where(rng.random(rows) < self.noise, 1 - human, human)
        judged = np.where(rng.random(rows) < self.bias, 1.0, flipped)
        return human, judged, names

    def truth(self) -> float:
        human, _, _ = self.draw(np.random.default_rng(0), 2_000_000)
        return float(human.mean())


def powered(world: World, humans_only: bool = False) -> Simulate:
    def simulate(rng: np.random.Generator, repetitions: int) -> float:
        truth, covered = world.truth(), 0
        for _ in range(repetitions):
            human, judged, names = world.draw(rng, LABELS + OTHERS)
            labelled = Labelled(human[:LABELS].tolist(), judged[:LABELS].tolist(), names[:LABELS])
            others = Judged([], []) if humans_only else Judged(judged[LABELS:].tolist(), names[LABELS:])
            found = mean(labelled, others, world.bounds)
            covered += found.low <= truth <= found.high
        return covered / repetitions

    return simulate


def weighted(world: World) -> Simulate:
    """Rows that the judge calls bad are labelled four times as often, and weighted for it."""

    def simulate(rng: np.random.Generator, repetitions: int) -> float:
        truth, covered = world.truth(), 0
        for _ in range(repetitions):
            human, judged, names = world.draw(rng, OTHERS)
            chance = np.where(judged < sum(world.bounds) / 2, 0.32, 0.08)
            chosen = rng.random(OTHERS) < chance
            labelled = Labelled(
                human[chosen].tolist(), judged[chosen].tolist(), _some(names, chosen), (1 / chance[chosen]).tolist()
            )
            found = mean(labelled, Judged(judged.tolist(), names), world.bounds)
            covered += found.low <= truth <= found.high
        return covered / repetitions

    return simulate


def gladen(level: float, sensitivity: float, specificity: float) -> Simulate:
    def simulate(rng: np.random.Generator, repetitions: int) -> float:
        covered = told = 0
        for _ in range(repetitions):
            positives = int(rng.binomial(2 * LABELS, level))
            hits = int(rng.binomial(positives, sensitivity))
            rejections = int(rng.binomial(2 * LABELS - positives, specificity))
            good = int(rng.binomial(OTHERS, level))
            called = int(rng.binomial(good, sensitivity) + rng.binomial(OTHERS - good, 1 - specificity))
            found = rogan_gladen(called, OTHERS, hits, positives, rejections, 2 * LABELS - positives)
            if found is not None:
                told += 1
                covered += found.low <= level <= found.high
        return covered / told

    return simulate


def bias(world: World) -> Simulate:
    """How much more the judge gives than people do."""

    def simulate(rng: np.random.Generator, repetitions: int) -> float:
        human, judged, _ = world.draw(np.random.default_rng(0), 2_000_000)
        truth, covered = float((judged - human).mean()), 0
        for _ in range(repetitions):
            human, judged, names = world.draw(rng, LABELS)
            found = clustered.mean((judged - human).tolist(), names)
            covered += found is not None and found.low <= truth <= found.high
        return covered / repetitions

    return simulate


def kappa(world: World) -> Simulate:
    def simulate(rng: np.random.Generator, repetitions: int) -> float:
        human, judged, _ = world.draw(np.random.default_rng(0), 400_000)
        truth, covered = cohen_kappa(human.tolist(), judged.tolist(), "quadratic"), 0
        for _ in range(repetitions):
            human, judged, names = world.draw(rng, LABELS)
            ratings = human.tolist(), judged.tolist()

            def statistic(chosen: Sequence[int], ratings: tuple[list[float], list[float]] = ratings) -> float:
                one, other = ratings
                return cohen_kappa([one[row] for row in chosen], [other[row] for row in chosen], "quadratic")

            found = clustered.coefficient(statistic, names)
            covered += found is not None and found.low <= truth <= found.high
        return covered / repetitions

    return simulate


def length(effect: float, per: int) -> Simulate:
    """What length adds to the judge's score of answers that people find equally good."""

    def simulate(rng: np.random.Generator, repetitions: int) -> float:
        covered = 0
        for _ in range(repetitions):
            group = np.arange(LABELS) // per
            human = np.round(rng.normal(3, 1, LABELS))
            across = rng.normal(0, 1, LABELS) + 0.5 * (human - 3)
            shared = rng.normal(0, 0.5, group.max() + 1)[group]
            judged = human + effect * across + shared + rng.normal(0, 1, LABELS)
            found = clustered.slope(across.tolist(), judged.tolist(), human.tolist(), [str(each) for each in group])
            covered += found is not None and found.low <= effect <= found.high
        return covered / repetitions

    return simulate


def cases() -> dict[str, Simulate]:
    """Name to a simulation that gives the share covered."""
    yes = World(ordinal=False, per=1, level=0.8, bias=0.2, noise=0.1)
    scores = World(ordinal=True, per=1, level=0.5, bias=0.6, noise=0.7)
    found: dict[str, Simulate] = {}
    for name, world in (("binary", yes), ("ordinal", scores)):
        groups = World(world.ordinal, 4, world.level, world.bias, world.noise)
        worse = World(world.ordinal, 1, world.level, 2 * world.bias, 3 * world.noise)
        found |= {
            f"ppi, {name}, biased judge": powered(world),
            f"ppi, {name}, biased judge, conversations of 4": powered(groups),
            f"ppi, {name}, very biased and noisy judge": powered(worse),
            f"ppi, {name}, labels alone": powered(world, humans_only=True),
            f"ppi, {name}, labels drawn by the judge's score": weighted(world),
            f"judge's bias, {name}": bias(world),
            f"judge's bias, {name}, conversations of 4": bias(groups),
            f"kappa, {name}": kappa(world),
        }
    found["kappa, ordinal, conversations of 4"] = kappa(World(True, 4, 0.5, 0.6, 0.7))
    for level in (0.5, 0.8):
        found[f"rogan-gladen, {level:g} good, able judge"] = gladen(level, 0.9, 0.85)
        found[f"rogan-gladen, {level:g} good, lenient judge"] = gladen(level, 0.95, 0.6)
    found["effect of length, none"] = length(0.0, 1)
    found["effect of length, 0.3, conversations of 4"] = length(0.3, 4)
    return found


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    told = {}
    for number, (name, simulate) in enumerate(cases().items()):
        told[name] = round(simulate(np.random.default_rng(number), repetitions), 4)
        print(f"{told[name]:.3f}  {name}", file=sys.stderr, flush=True)
    print(json.dumps({"repetitions": repetitions, "nominal": 0.95, "covered": told}, indent=1))


def _some(names: Sequence[str], chosen: npt.NDArray[np.bool_]) -> list[str]:
    return [name for name, here in zip(names, chosen, strict=True) if here]


if __name__ == "__main__":
    main()
