"""Simulated lives of a task: does the gate keep its promise, and what does it cost?

`make bench-gate`, or `python benchmarks/gate.py --lives 200` for a quick look. Each life has 20 turns. In each a
challenger meets a fresh slice of the champion on up to 4,000 pairs of answers and is looked at after every one; what is
promoted is watched against the control slice for as long again. Three gates see answers of the same kind:

- noria: e-processes by betting, levels from one error budget for a whole life (noria.stats: anytime, budget);
- peek-z: a z-test at 5 % (two-sided) after every answer from the 50th on, each turn for itself;
- threshold: promote when the mean gain of the first 200 pairs is above 0, roll back when that of the last 200 is below
  minus the margin.

A promotion is false when the challenger is not better, a rollback when what is rolled back is not worse; both are
counted by life: one in 20 turns is one too many. Power is the share of better challengers that are promoted; in the
world that declines, of promoted ones that are rolled back once they are worse.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from noria.stats import anytime, budget

TURNS, PAIRS, WATCH = 20, 4000, 4000
RISK, MARGIN, GAIN = 0.05, 0.02, 0.05
BURN_IN, Z, FIXED = 50, 1.96, 200
LIVES_AT_ONCE = 50
BOUND = 3.0
"""Heavy-tailed scores are cut to this before they are compared: a bound that is fixed beforehand."""

Draw = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class World:
    """What challengers are like: their true gains at each turn, what comes of a promoted one, and how scores fall."""

    name: str
    gains: Callable[[np.random.Generator, int], np.ndarray]
    """(generator, lives) -> true gain of each turn's challenger, [lives, TURNS]."""
    decline: float = 0.0
    """By how much the gain of what was promoted falls until the end of its watch."""
    heavy: bool = False


def _votes(random: np.random.Generator, means: np.ndarray) -> np.ndarray:
    """Win, tie or loss of the challenger in each pair: 30 % are decided."""
    drawn = random.random(means.shape, dtype=np.float32)
    return np.where(drawn < 0.15 + means / 2, 1.0, np.where(drawn < 0.3, -1.0, 0.0))


def _heavy(random: np.random.Generator, means: np.ndarray) -> np.ndarray:
    """Differences with Student's t of 2.1 degrees of freedom: a variance that no sample shows."""
    return random.standard_t(2.1, means.shape) + 4 * means


def _none(random: np.random.Generator, lives: int) -> np.ndarray:
    return np.zeros((lives, TURNS))


def _all_good(random: np.random.Generator, lives: int) -> np.ndarray:
    return np.full((lives, TURNS), GAIN)


def _one_bad(random: np.random.Generator, lives: int) -> np.ndarray:
    gains = _all_good(random, lives)
    gains[np.arange(lives), random.integers(0, TURNS, lives)] = -1.5 * MARGIN
    return gains


def _half_good(random: np.random.Generator, lives: int) -> np.ndarray:
    return np.where(random.random((lives, TURNS)) < 0.5, GAIN, 0.0)


WORLDS = (
    World("no difference", _none),
    World("slow decline", _all_good, decline=0.2),
    World("one bad candidate", _one_bad),
    World("heavy-tailed scores", _half_good, heavy=True),
)


class Noria:
    """The product's own rule, with its own budgets for promotions and for rollbacks."""

    def __init__(self, lives: int, heavy: bool) -> None:
        self._bound = BOUND if heavy else 1.0
        self._promotions: list[list[budget.Spent]] = [[] for _ in range(lives)]
        self._stops: list[list[budget.Spent]] = [[] for _ in range(lives)]

    def trial(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs until promoted, and until stopped as worse, of each life; 0 for never."""
        scores = np.clip(scores, -self._bound, self._bound)
        levels = self._levels(self._promotions)
        won = anytime.first(anytime.log_capital(scores, 0.0, -self._bound, self._bound), levels)
        stops = self._levels(self._stops)
        lost = anytime.first(anytime.log_capital(-scores, 0.0, -self._bound, self._bound), stops)
        won, lost = _first_only(won, lost)
        self._spend(self._promotions, levels, won > 0)
        self._spend(self._stops, stops, lost > 0)
        return won, lost

    def watch(self, scores: np.ndarray, lives: np.ndarray) -> np.ndarray:
        """Pairs until rolled back, of the lives named; 0 for never."""
        scores = np.clip(scores, -self._bound, self._bound)
        levels = self._levels([self._stops[each] for each in lives])
        back = anytime.first(anytime.since_any(-scores, 0.0, -self._bound, self._bound), levels)
        for life, level, acted in zip(lives, levels, back > 0, strict=True):
            self._stops[life].append(budget.Spent(float(level), bool(acted)))
        return back

    def _levels(self, spent: Sequence[list[budget.Spent]]) -> np.ndarray:
        return np.array([budget.level(RISK, each) for each in spent])

    def _spend(self, spent: list[list[budget.Spent]], levels: np.ndarray, acted: np.ndarray) -> None:
        for each, level, done in zip(spent, levels, acted, strict=True):
            each.append(budget.Spent(float(level), bool(done)))


class PeekZ:
    """A z-test after every answer."""

    def __init__(self, lives: int, heavy: bool) -> None:
        del lives, heavy

    def trial(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = self._z(scores)
        return _first_only(_crossed(z > Z), _crossed(z < -Z))

    def watch(self, scores: np.ndarray, lives: np.ndarray) -> np.ndarray:
        return _crossed(self._z(scores) < -Z)

    def _z(self, scores: np.ndarray) -> np.ndarray:
        count = np.arange(1, scores.shape[-1] + 1)
        mean = scores.cumsum(-1) / count
        variance = np.maximum((scores * scores).cumsum(-1) / count - mean**2, 1e-12)
        z = mean / np.sqrt(variance / count)
        z[:, : BURN_IN - 1] = 0
        return np.asarray(z)


class Threshold:
    """Compare two means of a fixed number of answers."""

    def __init__(self, lives: int, heavy: bool) -> None:
        del lives, heavy

    def trial(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        better = scores[:, :FIXED].mean(-1) > 0
        return np.where(better, FIXED, 0), np.zeros(len(scores), int)

    def watch(self, scores: np.ndarray, lives: np.ndarray) -> np.ndarray:
        sums = scores.cumsum(-1)
        last = (sums[:, FIXED:] - sums[:, :-FIXED]) / FIXED
        back = _crossed(last < -MARGIN)
        return np.where(back > 0, back + FIXED, 0)


GATES: dict[str, type[Noria | PeekZ | Threshold]] = {"noria": Noria, "peek-z": PeekZ, "threshold": Threshold}


def _crossed(over: np.ndarray) -> np.ndarray:
    return np.where(over.any(-1), over.argmax(-1) + 1, 0)


def _first_only(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of two moments the earlier one; the later never comes."""
    both = (one > 0) & (other > 0)
    return np.where(both & (other <= one), 0, one), np.where(both & (one < other), 0, other)


def lives(world: World, gate: str, count: int, seed: int) -> dict[str, Any]:
    """What happened in `count` lives."""
    random = np.random.default_rng(seed)
    draw = _heavy if world.heavy else _votes
    gains = world.gains(random, count)
    rule = GATES[gate](count, world.heavy)
    false_promotion, worse, false_rollback = (np.zeros(count, bool) for _ in range(3))
    answers: list[int] = []
    good = promoted = declines = caught = 0
    for turn in range(TURNS):
        true = gains[:, turn]
        won, lost = rule.trial(draw(random, np.repeat(true[:, None], PAIRS, 1)))
        false_promotion |= (won > 0) & (true <= 0)
        worse |= (won > 0) & (true < -MARGIN)
        false_rollback |= (lost > 0) & (true >= 0)
        good += int((true > 0).sum())
        promoted += int(((true > 0) & (won > 0)).sum())
        answers += [*(won[won > 0].tolist()), *(lost[lost > 0].tolist())]
        live = np.flatnonzero(won)
        path = true[live, None] - world.decline * np.linspace(0, 1, WATCH)
        back = rule.watch(draw(random, path), live)
        truth = path[np.arange(len(live)), back - 1]
        false_rollback[live] |= (back > 0) & (truth >= 0)
        if world.decline:
            declines += len(live)
            caught += int(((back > 0) & (truth < 0)).sum())
    power = [caught, declines] if world.decline else [promoted, good]
    return {
        "false_promotion": false_promotion, "worse": worse, "false_rollback": false_rollback,
        "power": power, "answers": answers, "promoted": promoted, "good": good,
    }  # fmt: skip


def _measured(world: World, gate: str, count: int, seed: int) -> dict[str, Any]:
    parts = [
        lives(world, gate, min(LIVES_AT_ONCE, count - start), seed + start) for start in range(0, count, LIVES_AT_ONCE)
    ]
    hits, chances = (sum(part["power"][side] for part in parts) for side in (0, 1))
    answers = [each for part in parts for each in part["answers"]]
    row: dict[str, Any] = {"world": world.name, "gate": gate, "lives": count}
    for name, key in (("false_promotion", "false_promotion"), ("worse_than_margin", "worse"), ("false_rollback",) * 2):
        row[name] = round(float(np.concatenate([part[key] for part in parts]).mean()), 4)
    row["power"] = round(hits / chances, 4) if chances else None
    good = sum(part["good"] for part in parts)
    row["promoted_of_better"] = round(sum(part["promoted"] for part in parts) / good, 4) if good else None
    row["median_answers"] = int(np.median(answers)) if answers else None
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when noria breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gate.json")
    options = parser.parse_args(arguments)
    jobs = [(world, gate) for world in WORLDS for gate in GATES]
    rows = []
    with ProcessPoolExecutor() as pool:
        done = [pool.submit(_measured, world, gate, options.lives, options.seed) for world, gate in jobs]
        for each in done:
            rows.append(each.result())
            print(_line(rows[-1]), flush=True)
    setting = {"lives": options.lives, "turns": TURNS, "pairs": PAIRS, "risk": RISK, "margin": MARGIN, "gain": GAIN}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"setting": setting, "worlds": rows}, indent=1) + "\n")
    _draw(rows, options.out.with_suffix(".png"))
    broken = [
        row for row in rows if row["gate"] == "noria" and max(row["false_promotion"], row["false_rollback"]) > RISK
    ]
    return 1 if broken else 0


def _line(row: dict[str, Any]) -> str:
    power = "-" if row["power"] is None else f"{row['power']:.3f}"
    return (
        f"{row['world']:20} {row['gate']:10} false promotion {row['false_promotion']:.3f}  "
        f"false rollback {row['false_rollback']:.3f}  power {power}  median answers {row['median_answers']}"
    )


def _draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Shares by world and gate, with the promise as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    titles = ("lives with a false promotion", "lives with a false rollback", "power")
    for axis, key, title in zip(axes, ("false_promotion", "false_rollback", "power"), titles, strict=True):
        for number, gate in enumerate(GATES):
            values = [next(row[key] for row in rows if row["world"] == w.name and row["gate"] == gate) for w in WORLDS]
            places = np.arange(len(WORLDS)) + (number - 1) * 0.27
            axis.bar(places, [value or 0 for value in values], 0.25, label=gate)
        axis.set_xticks(range(len(WORLDS)), [world.name.replace(" ", "\n") for world in WORLDS], fontsize=8)
        axis.set_title(title)
        axis.set_ylim(0, 1)
        if key != "power":
            axis.axhline(RISK, color="black", linewidth=0.8, linestyle="--")
    axes[0].legend()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
