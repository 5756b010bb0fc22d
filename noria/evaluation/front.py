"""Which candidates are not worse than the best by the margin, and which of them is the cheapest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from noria.evaluation.measured import Measured
from noria.stats.bounds import lower, rows_to_decide
from noria.types import Interval

COSTS = {"cost_per_1000": "cost", "wh_per_1000": "energy", "p50_ms": "latency"}
"""By what the cheapest is found, in this order: the first that is known of the whole front."""


@dataclass(frozen=True, slots=True)
class Front:
    """The `members` by place, the `best` by its value, and the `chosen` one: the cheapest member `by` what is named.

    `floors` are, for each side, how much better than the strongest of the others it certainly is, at the level:
    a member's is above minus `margin`. `needed` rows would decide about the others, where that can be told.
    """

    metric: str
    margin: float
    risk: float
    rows: int
    best: int
    members: tuple[int, ...]
    chosen: int
    by: str | None
    floors: tuple[float, ...]
    needed: int | None

    def told(self, refs: Sequence[str]) -> dict[str, JsonValue]:
        """As JSON, the sides by their refs."""
        return {
            "metric": self.metric, "margin": self.margin, "risk": self.risk, "rows": self.rows,
            "best": refs[self.best], "members": [refs[each] for each in self.members], "chosen": refs[self.chosen],
            "by": self.by, "rows_to_decide": self.needed,
        }  # fmt: skip


def front(
    values: Sequence[float],
    pairs: Mapping[tuple[int, int], Interval],
    measured: Sequence[Measured | None],
    margin: float,
    risk: float,
) -> Front:
    """Find the front.

    A candidate is a member where the rows show against every other one that it does not lose more than the margin. All
    of these must be shown, so each may be at the whole level (an intersection-union test; Hsu, "Multiple Comparisons",
    1996, on comparisons with the best); the level is `risk` over the number of candidates, so that with all of them
    together a false member gets in with a chance of `risk` at most. The best by its value is a member without a test:
    there is nothing that was seen to be better.

    Args:
        values: the metric of each side.
        pairs: by places (i, j), i < j: the paired interval from side i (before) to side j (after).
        measured: what each side's answers took.
        margin: what may be lost at the most.
        risk: chance of any false member.
    """
    first = next(iter(pairs.values()))
    sign, count = (1 if first.higher_is_better else -1), len(values)
    level = risk / count
    best = max(range(count), key=lambda place: sign * values[place])
    floors, needed = [], 0
    for one in range(count):
        found = []
        for other in range(count):
            if other == one:
                continue
            pair = pairs[min(one, other), max(one, other)]
            gain = sign * pair.gain * (1 if other < one else -1)
            found.append(_floor(pair, gain, one > other, sign, level))
            if one != best and found[-1] <= -margin:
                more = rows_to_decide(gain + margin, pair.error or 0.0, pair.clusters, pair.rows, level)
                needed = max(needed, more or 0)
        floors.append(min(found))
    members = tuple(place for place in range(count) if place == best or floors[place] > -margin)
    chosen, by = _cheapest(members, best, measured)
    return Front(
        first.name, margin, risk, first.rows, best, members, chosen, by, tuple(floors), needed or None
    )  # fmt: skip


def _floor(pair: Interval, gain: float, forward: bool, sign: int, level: float) -> float:
    """What the gain certainly is above; the pair's own bound where nothing is known of its error."""
    if pair.error is not None:
        return lower(gain, pair.error, pair.clusters, level)
    bounds = (pair.low, pair.high) if forward else (-pair.high, -pair.low)
    return bounds[0] if sign > 0 else -bounds[1]


def _cheapest(members: Sequence[int], best: int, measured: Sequence[Measured | None]) -> tuple[int, str | None]:
    """The cheapest member by the first cost that is known of all of them; the best where there is none."""
    for field, name in COSTS.items():
        costs = {place: getattr(measured[place], field, None) for place in members}
        known = {place: float(cost) for place, cost in costs.items() if cost is not None}
        if len(known) == len(members):
            return min(members, key=lambda place: (known[place], place != best)), name
    return best, None
