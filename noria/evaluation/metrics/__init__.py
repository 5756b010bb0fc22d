"""Metrics: what an answer is worth, with definitions, ranges and sources.

A metric gives each row sufficient statistics and makes a value of their sum (`metric.Metric`), so that any metric of
many answers can be resampled. They are found by name through the entry points of the group `noria.metrics`: noria's
own by the same door as anyone's. `noria evaluate metrics` lists them.
"""

from noria.evaluation.metrics.catalogue import check, find, names, score
from noria.evaluation.metrics.metric import Answered, Metric, mean_of
from noria.evaluation.metrics.overlap import exact_match, rouge_l, token_f1

__all__ = [
    "Answered",
    "Metric",
    "check",
    "exact_match",
    "find",
    "mean_of",
    "names",
    "rouge_l",
    "score",
    "token_f1",
]
