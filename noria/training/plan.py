"""Which rows are learned, how often and in which order. Pure: the same arguments give the same plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from noria.settings import WeightRecipe

WINDOW = 8
"""Batches that are filled together from rows of similar length, which saves padding and keeps the order random."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the plan needs to know of a row: its number in the file, its length in tokens and its kind."""

    number: int
    tokens: int
    new: bool
    """Not seen by the adapter that the training goes on from."""
    correction: bool


def batches(rows: Sequence[Row], recipe: WeightRecipe) -> list[list[int]]:
    """Row numbers by optimiser step.

    New rows are seen `epochs` times, new corrections `correction_epochs` times (a fact is learned by repetition), and
    for each of these exposures `replay` known rows are mixed in, against forgetting.
    """
    choose = random.Random(recipe.seed)
    fresh = [row for row in rows if row.new]
    exposures = [
        row
        for row in fresh
        for _ in range(_times(recipe.correction_epochs if row.correction else recipe.epochs, choose))
    ]
    exposures += _replayed([row for row in rows if not row.new], round(recipe.replay * len(exposures)), choose)
    choose.shuffle(exposures)
    size = recipe.batch
    steps: list[list[int]] = []
    for start in range(0, len(exposures), size * WINDOW):
        window = sorted(exposures[start : start + size * WINDOW], key=lambda row: row.tokens)
        filled = [[row.number for row in window[at : at + size]] for at in range(0, len(window), size)]
        choose.shuffle(filled)
        steps += filled
    return steps


def _times(epochs: float, choose: random.Random) -> int:
    whole = int(epochs)
    return whole + (choose.random() < epochs - whole)


def _replayed(known: Sequence[Row], count: int, choose: random.Random) -> list[Row]:
    taken: list[Row] = []
    while known and len(taken) < count:
        taken += choose.sample(known, min(len(known), count - len(taken)))
    return taken
