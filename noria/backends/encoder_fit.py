"""Heads fitted on vectors: regularised logistic regression, its penalty and its temperature by cross-validation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from noria.backends.encoder_model import sigmoid, softmax

Matrix = NDArray[np.float64]
PENALTIES: Final = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""What cross-validation chooses from, the strongest first."""
USUAL: Final = 0.1
"""Penalty where there are too few groups to choose one."""
FOLDS: Final = 5
TRIED: Final = 2000
"""Most rows that the cross-validation takes."""
STEPS: Final = 300
TOLERANCE: Final = 1e-4
_TEMPERATURES: Final = np.geomspace(0.1, 10.0, 201)


@dataclass(frozen=True, slots=True)
class Rows:
    """Vectors, shape (rows, width); wanted labels as 0 and 1 and their weights, shape (rows, labels); groups."""

    vectors: Matrix
    wanted: Matrix
    weights: Matrix
    groups: Sequence[str]
    several: bool

    def take(self, places: Sequence[int] | NDArray[np.intp]) -> Rows:
        """Some of the rows."""
        at = np.asarray(places, np.intp)
        groups = [self.groups[place] for place in at]
        return Rows(self.vectors[at], self.wanted[at], self.weights[at], groups, self.several)

    def loss(self, logits: Matrix) -> float:
        """Weighted mean cross-entropy, in nats a row."""
        if self.several:
            costs = np.logaddexp(0.0, np.where(self.wanted > 0, -logits, logits))
            return float((self.weights * costs).sum() / self.weights.sum()) * logits.shape[1]
        chosen = (logits * self.wanted).sum(axis=1)
        costs = np.logaddexp.reduce(logits, axis=1) - chosen
        weights = (self.weights * self.wanted).sum(axis=1)
        return float(weights @ costs / weights.sum())

    def right(self, logits: Matrix) -> float:
        """Share of the rows whose labels are all as wanted."""
        if self.several:
            found = logits >= 0
            none = ~found.any(axis=1)
            found[none, logits[none].argmax(axis=1)] = True
            return float((found == (self.wanted > 0)).all(axis=1).mean())
        return float((logits.argmax(axis=1) == self.wanted.argmax(axis=1)).mean())


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head: logits are `vectors @ weight.T + bias`. `losses` are those of the steps."""

    weight: Matrix
    bias: Matrix
    losses: tuple[float, ...] = ()

    def logits(self, vectors: Matrix) -> Matrix:
        """Shape (rows, labels)."""
        return np.asarray(vectors @ self.weight.T + self.bias)


@dataclass(frozen=True, slots=True)
class Checked:
    """What rows that were not learned say: their loss and share of right ones, the penalty, the temperature."""

    l2: float
    temperature: float
    loss: float | None = None
    right: float | None = None


def rows_of(
    vectors: Matrix, targets: Sequence[Sequence[str]], labels: Sequence[str], groups: Sequence[str], *,
    several: bool, balance: bool,
) -> Rows:  # fmt: skip
    """Rows with targets as lists of labels; with `balance` each label's rows weigh as much as another's."""
    place = {label: number for number, label in enumerate(labels)}
    wanted = np.zeros((len(targets), len(labels)))
    for row, target in zip(wanted, targets, strict=True):
        row[[place[each] for each in target]] = 1.0
    weights = np.ones_like(wanted)
    held = wanted.sum(axis=0)
    if balance and several:
        absent = len(wanted) - held
        weights = np.where(
            wanted > 0, len(wanted) / (2 * np.maximum(held, 1)), len(wanted) / (2 * np.maximum(absent, 1))
        )
    elif balance:
        weights = np.broadcast_to(len(wanted) / (len(labels) * np.maximum(held, 1)), wanted.shape).copy()
    return Rows(vectors, wanted, weights, list(groups), several)


def fit(rows: Rows, l2: float, start: Fitted | None = None) -> Fitted:
    """Minimise weighted cross-entropy plus half of `l2` times the squared weights, on centred and scaled vectors.

    Steps by the fixed bound on the curvature (Boehning 1992), which always descend, accelerated by Nesterov's momentum
    with restarts (O'Donoghue and Candes 2015): no randomness, no step size to choose.
    """
    per_row = rows.weights if rows.several else (rows.weights * rows.wanted).sum(axis=1, keepdims=True)
    per_row = per_row * (rows.weights.shape[1] if rows.several else 1) / per_row.sum()
    heaviest = per_row.max(axis=1)
    mean = heaviest @ rows.vectors / heaviest.sum()
    centred = rows.vectors - mean
    scale = 1.0 / max(1e-12, float(np.sqrt(heaviest @ np.square(centred).sum(axis=1) / heaviest.sum())))
    # Along the principal axes the curvature is diagonal; axes on which nothing lies are left out.
    spread, axes = np.linalg.eigh((centred * (heaviest * scale**2)[:, None]).T @ centred)
    there = spread > 1e-9 * spread[-1]
    axes = axes[:, there] * scale
    data = np.hstack([centred @ axes, np.ones((len(centred), 1))])
    penalty = np.append(np.full(int(there.sum()), l2), 0.0)  # The intercept is free.
    curvature = (0.25 if rows.several else 0.5) * np.append(spread[there], heaviest.sum()) + penalty
    theta = np.zeros((rows.wanted.shape[1], data.shape[1]))
    if start is not None:
        theta[:, :-1] = start.weight @ axes / scale**2
        theta[:, -1] = start.bias + start.weight @ mean
    ahead, momentum, losses = theta.copy(), 1.0, list[float]()
    for _ in range(STEPS):
        logits = data @ ahead.T
        found = sigmoid(logits) if rows.several else softmax(logits)
        gradient = (per_row * (found - rows.wanted)).T @ data + penalty * ahead
        after = ahead - gradient / curvature
        losses.append(rows.loss(logits) + 0.5 * float((penalty * ahead**2).sum()))
        if np.abs(gradient).max() < TOLERANCE:
            break
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        turned = float((gradient * (after - theta)).sum()) > 0
        ahead = after if turned else after + (momentum - 1) / following * (after - theta)
        momentum = 1.0 if turned else following
        theta = after
    weight = theta[:, :-1] @ axes.T
    return Fitted(weight, theta[:, -1] - weight @ mean, tuple(losses))


def check(rows: Rows, l2: float | None) -> Checked:
    """Choose the penalty unless it is given, and the temperature, on rows that were held out group by group.

    Groups are kept whole: a text and its translation in different folds would flatter.
    """
    rows = rows.take(_some(rows.groups, TRIED))
    folds = folds_of(rows.groups, FOLDS)
    if len(folds) < 2:
        return Checked(l2 or USUAL, 1.0)
    tried = PENALTIES if l2 is None else (l2,)
    held = {each: np.zeros_like(rows.wanted) for each in tried}
    for out in folds:
        inside = rows.take(np.setdiff1d(np.arange(len(rows.groups)), out))
        fitted = None
        for each in tried:
            fitted = fit(inside, each, fitted)
            held[each][out] = fitted.logits(rows.vectors[out])
    best = min(tried, key=lambda each: rows.loss(held[each] / temperature(rows, held[each])))
    warm = temperature(rows, held[best])
    return Checked(best, warm, rows.loss(held[best] / warm), rows.right(held[best]))


def temperature(rows: Rows, logits: Matrix) -> float:
    """What the logits are divided by so that probabilities fit these rows, rare or frequent (Guo et al. 2017)."""
    rows = replace(rows, weights=np.ones_like(rows.weights))
    return float(min(_TEMPERATURES, key=lambda each: rows.loss(logits / each)))


def folds_of(groups: Sequence[str], most: int) -> list[NDArray[np.intp]]:
    """Places of the rows by fold; groups are whole, and folds about equal. Fewer than two groups make no folds."""
    sizes = Counter(groups)
    if len(sizes) < 2:
        return []
    full = [0] * min(most, len(sizes))
    fold: dict[str, int] = {}
    for group in sorted(sizes, key=lambda each: (-sizes[each], _lot(each))):
        fold[group] = full.index(min(full))
        full[fold[group]] += sizes[group]
    numbers = np.asarray([fold[group] for group in groups])
    return [np.flatnonzero(numbers == number) for number in range(len(full))]


def _some(groups: Sequence[str], most: int) -> list[int]:
    """Places of at most so many rows, whole groups by lot."""
    if len(groups) <= most:
        return list(range(len(groups)))
    taken, left = set[str](), most
    sizes = Counter(groups)
    for group in sorted(sizes, key=_lot):
        if sizes[group] <= left:
            taken.add(group)
            left -= sizes[group]
    return [place for place, group in enumerate(groups) if group in taken]


def _lot(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()
