"""What drives a preference between two answers: their quality, or that one of them is longer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LengthControl:
    """logit P(first wins) = intercept + slope * difference of lengths in standard deviations.

    `win_rate` is what is left of the first side's win rate where both answers are of equal length.
    """

    intercept: float
    slope: float
    win_rate: float


def length_control(wins: Sequence[float], differences: Sequence[float]) -> LengthControl | None:
    """Win rate at equal length ("Length-Controlled AlpacaEval", Dubois, Galambosi, Liang and Hashimoto 2024).

    Args:
        wins: 1 where the first answer is preferred, 0 where the second is, 0.5 for a tie.
        differences: length of the first answer less that of the second, in characters.

    Returns:
        None where there are fewer than two pairs.
    """
    if len(wins) < 2:
        return None
    across = np.asarray(differences, float)
    # Not centred: zero must go on meaning equal length.
    spread = float(np.sqrt((across**2).mean())) or 1.0
    design = np.column_stack([np.ones(len(across)), across / spread])
    if not across.any():
        design = design[:, :1]
    weights = [*logistic(design, np.asarray(wins, float)), 0.0]
    return LengthControl(float(weights[0]), float(weights[1]), 1 / (1 + math.exp(-float(weights[0]))))


def logistic(design: Numbers, wins: Numbers, steps: int = 200) -> Numbers:
    """Coefficients of a logistic regression with Firth's penalty ("Bias reduction of maximum likelihood", 1993).

    The penalty keeps coefficients finite where the design separates the outcomes, as that of a judge who always
    prefers the longer answer does. `wins` are in [0, 1]; a tie is 0.5.
    """
    weights = np.zeros(design.shape[1])
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        spread = chance * (1 - chance)
        inverse = np.linalg.pinv(design.T @ (design * spread[:, None]))
        leverage = np.einsum("ij,jk,ik->i", design, inverse, design) * spread
        step = inverse @ (design.T @ (wins - chance + leverage * (0.5 - chance)))
        largest = float(np.abs(step).max())
        # A full step may overshoot where the outcomes are all but separated.
        weights = weights + step / max(1.0, largest)
        if largest < 1e-9:
            break
    return weights
