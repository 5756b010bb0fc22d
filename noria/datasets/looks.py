"""How often sealed rows have been looked at, and which set of them is shown.

A holdout that decides again and again on candidates that were made with its earlier answers in mind is worn out: what
holds on it need not hold on fresh rows (Dwork, Feldman, Hardt, Pitassi, Reingold and Roth, "The reusable holdout:
preserving validity in adaptive data analysis", Science 349, 2015). Each report lets out one verdict. With k verdicts of
one bit there are at most 2^k candidates that could have been made by them, and the risk of any one bound on the rows
grows by as much at the worst; in practice far less, but it grows. So looks are counted, and limited.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from noria.ports import Platform
from noria.types import Artifact, Ref, shelf_key

ASIDE = 0.8
"""From this share of the looks on, fresh test rows are put aside for the next set."""

_MANY = 100_000


@dataclass(frozen=True, slots=True)
class Sealed:
    """The set of sealed rows that is shown, how often reports have looked at it, and where fresh rows go."""

    shown: int
    filling: int
    looks: int
    limit: int

    @property
    def advice(self) -> str | None:
        """What to do, where the set is nearly worn out."""
        if self.looks < ASIDE * self.limit:
            return None
        return (
            f"the sealed rows were looked at {self.looks} of {self.limit} times: draw fresh test rows; new "
            f"conversations are put aside for set {self.shown + 1}"
        )


def sealed(platform: Platform, name: str) -> Sealed:
    """Where the task stands, by what the ledger keeps; a set that was looked at too often is followed by the next."""
    limit = platform.settings.tasks[name].split.looks
    counts = _by_set(platform, name)
    shown = max(counts, default=1)
    if counts[shown] >= limit:
        return Sealed(shown + 1, shown + 1, 0, limit)
    return Sealed(shown, shown + (counts[shown] >= ASIDE * limit), counts[shown], limit)


def _by_set(platform: Platform, name: str) -> Counter[int]:
    """Distinct reports and comparisons, by the set that their dataset showed; sets not yet looked at are there."""
    counts: Counter[int] = Counter()
    seen: set[Ref] = set()
    for _, runs in platform.runs.cycles(name, _MANY):
        for run in runs:
            if run.output in seen or run.stage not in ("dataset", "report"):
                continue
            seen.add(run.output)
            made = platform.runs.artifact(run.output)
            if made is None:
                continue
            if run.stage == "dataset":
                counts[_set(made.meta.get("sealed"))] += 0
                continue
            dataset = next((ref for ref in made.parents if ref.kind == "dataset"), None)
            counts[_shown(platform, dataset)] += 1
    for dataset in _compared(platform, name):
        counts[_shown(platform, dataset)] += 1
    return counts


def _compared(platform: Platform, name: str) -> list[Ref]:
    """The datasets that comparisons have looked at, once for each set of candidates: the same again tells no more."""
    seen: dict[tuple[str, frozenset[str]], None] = {}
    made: Artifact | None = platform.runs.find(shelf_key("comparison", name, name))
    while made is not None:
        dataset, candidates = made.meta.get("dataset"), made.meta.get("candidates")
        if isinstance(dataset, str) and isinstance(candidates, list):
            seen[dataset, frozenset(map(str, candidates))] = None
        made = platform.runs.artifact(made.parents[0]) if made.parents else None
    return [Ref.parse(dataset) for dataset, _ in seen]


def _shown(platform: Platform, dataset: Ref | None) -> int:
    made = platform.runs.artifact(dataset) if dataset else None
    return _set(made.meta.get("sealed") if made else None)


def _set(meta: object) -> int:
    number = meta.get("set") if isinstance(meta, dict) else None
    return number if isinstance(number, int) else 1
