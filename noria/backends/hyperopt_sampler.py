"""HyperOpt's TPE as a sampler of Optuna, so that it shares studies, storage and pruning with the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from noria.errors import Unavailable
from noria.settings import Axis

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


class HyperoptSampler(BaseSampler):
    """`tpe.suggest` on the study's trials (Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization).

    Args:
        axes: what is searched.
        code: a choice as the study keeps it.
        seed: of the next draw.
        random: draws before the first that the trials have a say in.
    """

    def __init__(self, axes: Sequence[Axis], code: Callable[[Any], Any], seed: int, random: int) -> None:
        try:
            import hyperopt  # noqa: F401
        except ModuleNotFoundError as error:
            raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[train]'") from error
        self._axes = {axis.name: axis for axis in axes}
        self._code = code
        self._seed = seed
        self._random = random

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is left to Optuna: all fields are drawn together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `before_trial`."""
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Draw the values of this trial."""
        self._drawn = self._suggest(study, trial.number)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The field's part of what was drawn."""
        return self._drawn[param_name]

    def _suggest(self, study: Study, number: int) -> dict[str, Any]:
        from hyperopt import base, tpe

        domain = base.Domain(lambda values: 0.0, {name: _expression(axis) for name, axis in self._axes.items()})
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        docs = [doc for each in known if (doc := self._document(each, sign)) is not None]
        trials = base.trials_from_docs(docs, validate=False)
        suggest = partial(tpe.suggest, n_startup_jobs=self._random, verbose=False)
        [drawn] = suggest([number], domain, trials, self._seed)
        values = {name: found[0] for name, found in drawn["misc"]["vals"].items()}
        return {name: self._value(axis, values[name]) for name, axis in self._axes.items()}

    def _document(self, trial: FrozenTrial, sign: float) -> dict[str, Any] | None:
        """A finished trial as HyperOpt keeps it; a pruned one counts with what it had last."""
        from hyperopt import base

        reported = sorted(trial.intermediate_values.items())
        value = trial.value if trial.state == TrialState.COMPLETE else reported[-1][1] if reported else None
        if value is None or any(name not in trial.params for name in self._axes):
            return None
        places = {name: [trial.number] for name in self._axes}
        values = {name: [self._place(axis, trial.params[name])] for name, axis in self._axes.items()}
        misc = {"tid": trial.number, "cmd": None, "workdir": None, "idxs": places, "vals": values}
        return {
            "tid": trial.number, "state": base.JOB_STATE_DONE, "spec": None, "misc": misc,
            "result": {"status": "ok", "loss": sign * value}, "exp_key": None, "owner": None, "version": 0,
            "book_time": None, "refresh_time": None,
        }  # fmt: skip

    def _counted(self, axis: Axis) -> list[Any]:
        """The values of an axis that is drawn by number."""
        return [self._code(each) for each in axis.grid()]

    def _place(self, axis: Axis, value: Any) -> Any:
        if not (axis.choices or axis.step is not None):
            return float(value)
        there = self._counted(axis)
        if value in there:
            return there.index(value)
        return min(range(len(there)), key=lambda place: abs(there[place] - value))

    def _value(self, axis: Axis, drawn: Any) -> Any:
        if axis.choices or axis.step is not None:
            return self._counted(axis)[int(drawn)]
        value = round(float(drawn)) if axis.whole else float(drawn)
        # The logarithm and back may miss a bound by the last bit.
        return min(max(value, round(axis.low) if axis.whole else axis.low), axis.high)


def _expression(axis: Axis) -> Any:
    """HyperOpt's own form of an axis. Its loguniform wants the bounds' logarithms, not the bounds."""
    from hyperopt import hp

    if axis.choices or axis.step is not None:
        return hp.randint(axis.name, len(axis.grid()))
    margin = 0.5 if axis.whole else 0.0
    low, high = axis.low - margin, axis.high + margin
    return hp.loguniform(axis.name, math.log(low), math.log(high)) if axis.log else hp.uniform(axis.name, low, high)
