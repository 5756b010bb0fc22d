"""Studies in Optuna, kept in SQL beside the ledger, which several processes and machines share."""

from __future__ import annotations

import fcntl
import json
import math
import sqlite3
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pydantic import JsonValue

from noria.errors import NotFound, Unavailable
from noria.settings import Axis, SearchPlan, known
from noria.types import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

HEARTBEAT, GRACE = 5, 20
"""Seconds between two signs of life of a trial, and those after which one without any is lost."""
RETRIES = 2
"""A trial whose process is killed each time is given up after so many more."""
SCHEMA = "noria_studies"
"""Optuna has tables of the ledger's names, and on PostgreSQL a schema of its own for them."""
LOCK = 0x6E6F7269
"""Of PostgreSQL's advisory locks, ours."""
PLAN, BEGUN, TOLD, MARK = "plan", "begun", "told", "mark:"
"""User attributes of studies and trials."""


class OptunaStudies:
    """Port `Studies`; `ledger` is the ledger's URL, of which a relative SQLite file starts at `root`.

    On SQLite the studies have a file of their own beside the ledger's. Nothing is opened before it is used.
    """

    def __init__(self, ledger: str, root: Path, *, heartbeat: int = HEARTBEAT, grace: int = GRACE) -> None:
        url = sa.engine.make_url(ledger)
        self._file: Path | None = None
        if url.get_backend_name() == "sqlite":
            file = root / str(url.database)
            self._file = file.with_name(f"{file.stem}-studies{file.suffix or '.db'}")
            url = url.set(database=str(self._file))
        else:
            options = [*_texts(url.query.get("options")), f"-csearch_path={SCHEMA}"]
            url = url.update_query_dict({"options": " ".join(options)})
        self._url = url
        self._heartbeat, self._grace = heartbeat, grace
        self._opened: optuna.storages.RDBStorage | None = None

    def open(self, name: str, plan: SearchPlan | None = None) -> OptunaStudy:
        """Begin a study or go on with it; raises NotFound without a plan where there is none, Unavailable."""
        import optuna

        with self._told():
            storage = self._storage()
            if plan is None:
                try:
                    study = optuna.load_study(study_name=name, storage=storage)
                    plan = SearchPlan.model_validate(study.user_attrs[PLAN])
                except KeyError:
                    raise NotFound(
                        f"there is no study '{name}'", known(name, optuna.get_all_study_names(storage))
                    ) from None
                return OptunaStudy(self, study, plan)
            direction = optuna.study.StudyDirection.MAXIMIZE if plan.higher_is_better else None
            with self.alone():
                study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
                study.set_user_attr(PLAN, plan.model_dump(mode="json"))
                if plan.first and plan.sampler != "grid" and not study.get_trials(deepcopy=False):
                    study.enqueue_trial(_coded(plan.axes, plan.first))
            return OptunaStudy(self, study, plan)

    def names(self) -> list[str]:
        """All studies, oldest first; raises Unavailable."""
        import optuna

        if self._file is not None and not self._file.is_file():
            return []
        with self._told():
            return optuna.get_all_study_names(self._storage())

    def remove(self, name: str) -> None:
        """Remove a study with its trials; raises NotFound, Unavailable."""
        import optuna

        with self._told():
            try:
                optuna.delete_study(study_name=name, storage=self._storage())
            except KeyError:
                raise NotFound(f"there is no study '{name}'", known(name, self.names())) from None

    def record(self, identity: int) -> None:
        """Give a sign of life of the trial with Optuna's own id."""
        self._storage().record_heartbeat(identity)

    @property
    def pause(self) -> int:
        """Seconds between two signs of life."""
        return self._heartbeat

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time, of all that share the studies, counts trials and begins one."""
        if self._file is not None:
            with self._file.with_name(f"{self._file.name}.lock").open("w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            return
        engine = sa.create_engine(self._url, poolclass=sa.NullPool)
        # Ended with the connection, however this process ends.
        with engine.connect() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_lock(LOCK)))
            yield

    def _storage(self) -> optuna.storages.RDBStorage:
        if self._opened is None:
            try:
                import optuna
            except ModuleNotFoundError as error:
                raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[train]'") from error
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            patience = {"timeout": 30} if self._file is not None else {"connect_timeout": 5}
            with self.alone():
                if self._file is None:
                    with sa.create_engine(self._url, poolclass=sa.NullPool).begin() as connection:
                        connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
                with _quiet():
                    self._opened = optuna.storages.RDBStorage(
                        self._url.render_as_string(hide_password=False),
                        # What a dead thread held open would be told of as a leak.
                        engine_kwargs={"connect_args": patience, "poolclass": sa.NullPool},
                        heartbeat_interval=self._heartbeat,
                        grace_period=self._grace,
                        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(RETRIES),
                    )
                if self._file is not None:
                    sa.event.listen(self._opened.engine, "connect", _tune_sqlite)
        return self._opened

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the database as Unavailable."""
        try:
            self._storage()
            import optuna

            failures: tuple[type[Exception], ...] = (optuna.exceptions.StorageInternalError, sa.exc.SQLAlchemyError)
        except sa.exc.SQLAlchemyError as error:
            raise self._away(error) from error
        try:
            yield
        except failures as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> Unavailable:
        words = str(error).strip().partition("\n")[0]
        shown = self._url.render_as_string(hide_password=True)
        return Unavailable(f"the studies in '{shown}' cannot be reached: {words}", "check [runtime] ledger")


@dataclass(slots=True)
class _Begun:
    """A trial of this process, with the thread that says that it lives."""

    trial: optuna.Trial
    ended: threading.Event
    alive: threading.Thread


class OptunaStudy:
    """Port `Study`."""

    def __init__(self, home: OptunaStudies, study: optuna.Study, plan: SearchPlan) -> None:
        self.name = study.study_name
        self.plan = plan
        self._home = home
        self._study = study
        self._begun: dict[int, _Begun] = {}

    def ask(self) -> Trial | None:
        """Begin the next trial; None once the budget is spent or the grid is through. Raises Unavailable."""
        import optuna

        with self._home._told(), self._home.alone(), _quiet():
            optuna.storages.fail_stale_trials(self._study)
            self._retry_half_begun()
            there = self._told(self._study.get_trials(deepcopy=False))
            counted = [each for each in there if each.state not in ("waiting", "lost")]
            if len(counted) >= self.plan.most or self._spent(counted):
                return None
            # Each trial's draw depends on its number alone, whichever process makes it.
            self._study.sampler = _sampler(self.plan, self.plan.seed * 100_003 + len(there))
            self._study.pruner = _pruner(self.plan)
            begun = self._study.ask(fixed_distributions={axis.name: _distribution(axis) for axis in self.plan.axes})
            # All is drawn; a grid that is through would stop a loop of Optuna's own, of which there is none.
            self._study.sampler = optuna.samplers.RandomSampler()
            ended = threading.Event()
            alive = threading.Thread(target=self._live, args=(begun._trial_id, ended), daemon=True)
            self._home.record(begun._trial_id)
            begun.set_user_attr(BEGUN, begun.number)
            alive.start()
            self._begun[begun.number] = _Begun(begun, ended, alive)
            return Trial(number=begun.number, state="running", values=_plain(self.plan.axes, begun.params))

    def report(self, number: int, tenth: int, value: float) -> bool:
        """Note what was measured after so many tenths; whether to prune the trial."""
        with self._home._told():
            trial = self._begun[number].trial
            trial.report(value, tenth)
            return trial.should_prune()

    def tell(self, trial: Trial) -> None:
        """End a trial. One that was taken for lost in the meantime, as on a machine that slept, stays so."""
        import optuna
        from optuna.trial import TrialState

        begun = self._begun.pop(trial.number)
        begun.ended.set()
        begun.alive.join()
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        value = trial.value if trial.state == "complete" else None
        told = {"number": trial.number, "seconds": trial.seconds, "wh": trial.wh, "because": trial.because}
        with self._home._told(), suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):
            begun.trial.set_user_attr(TOLD, told)
            frozen = self._study.tell(begun.trial, value, states.get(trial.state, TrialState.FAIL))
            if trial.state == "lost":
                self._retry(frozen)

    def trials(self) -> list[Trial]:
        """All of them, by number; raises Unavailable."""
        with self._home._told():
            return self._told(self._study.get_trials(deepcopy=False))

    def importance(self) -> dict[str, float]:
        """Shares by PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255), of four finished trials and more."""
        import optuna

        values = {each.value for each in self.trials() if each.state == "complete"}
        if len(values) < 4 or len(self.plan.axes) < 2:
            return {}
        with self._home._told(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = optuna.importance.get_param_importances(self._study)
            except (RuntimeError, ValueError):
                return {}
        return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}

    def once(self, mark: str) -> bool:
        """True for the first who names this mark; raises Unavailable."""
        with self._home._told(), self._home.alone():
            if MARK + mark in self._study.user_attrs:
                return False
            self._study.set_user_attr(MARK + mark, True)
            return True

    def _retry(self, trial: optuna.trial.FrozenTrial) -> None:
        import optuna

        with _quiet():
            optuna.storages.RetryHeartbeatStaleTrialCallback()(self._study, trial)

    def _retry_half_begun(self) -> None:
        """Begin those again whose process was killed while it drew their values, before any sign of life."""
        from optuna.trial import TrialState

        # Who draws has the lock, and that is us: nobody else is at it now. A retry has the old one's attributes.
        for each in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if each.user_attrs.get(BEGUN) != each.number:
                self._retry(self._study.tell(each.number, state=TrialState.FAIL))

    def _spent(self, trials: Sequence[Trial]) -> bool:
        minutes, energy = self.plan.minutes, self.plan.energy_wh
        if minutes is not None and sum(each.seconds for each in trials) >= 60 * minutes:
            return True
        return energy is not None and sum(each.wh or 0.0 for each in trials) >= energy

    def _live(self, identity: int, ended: threading.Event) -> None:
        import optuna

        while not ended.wait(self._home.pause):
            # The database may be away for a moment; the next sign counts as well.
            with suppress(optuna.exceptions.StorageInternalError, sa.exc.SQLAlchemyError):
                self._home.record(identity)

    def _told(self, trials: Sequence[optuna.trial.FrozenTrial]) -> list[Trial]:
        retried = {number for each in trials for number in each.system_attrs.get("retry_history", ())}
        return [_trial(self.plan.axes, each, each.number in retried) for each in trials]


def _trial(axes: Sequence[Axis], frozen: optuna.trial.FrozenTrial, retried: bool) -> Trial:
    state = {"fail": "lost" if retried else "failed"}.get(frozen.state.name.lower(), frozen.state.name.lower())
    told = frozen.user_attrs.get(TOLD, {})
    # What is retried has the attributes of the one before it.
    told = told if told.get("number") == frozen.number else {}
    curve = tuple(value for _, value in sorted(frozen.intermediate_values.items()))
    params = frozen.params or frozen.system_attrs.get("fixed_params", {})
    silent = {"because": f"its process was killed {RETRIES + 1} times"} if state == "failed" and not told else {}
    return Trial.model_validate(
        {
            "number": frozen.number, "state": state, "values": _plain(axes, params), "curve": curve,
            "value": frozen.value if state == "complete" else None, **silent, **told,
        }
    )  # fmt: skip


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.choices:
        return CategoricalDistribution([_code(value) for value in axis.choices])
    if axis.whole:
        return IntDistribution(round(axis.low), round(axis.high), log=axis.log, step=round(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def _code(value: JsonValue) -> Any:
    """A choice as SQL can keep it: what is no plain value stands as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _coded(axes: Sequence[Axis], values: dict[str, JsonValue]) -> dict[str, Any]:
    """What is given; the other axes are drawn."""
    return {axis.name: _code(values[axis.name]) for axis in axes if axis.name in values}


def _plain(axes: Sequence[Axis], params: dict[str, Any]) -> dict[str, JsonValue]:
    """What was drawn, as the recipe takes it."""
    values: dict[str, JsonValue] = {}
    for axis in axes:
        if axis.name in params:
            drawn = params[axis.name]
            values[axis.name] = next((each for each in axis.choices if _code(each) == drawn), drawn)
    return values


def _sampler(plan: SearchPlan, seed: int) -> optuna.samplers.BaseSampler:
    from optuna import samplers

    # Optuna's ten and HyperOpt's twenty random draws would leave a short search nothing to learn from.
    random = max(4, min(10, plan.trials // 4))
    if plan.sampler == "grid":
        # It numbers its points in an order of the seed.
        return samplers.GridSampler(
            {axis.name: [_code(each) for each in axis.grid()] for axis in plan.axes}, seed=plan.seed
        )
    if plan.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    if plan.sampler == "hyperopt-tpe":
        from noria.backends.hyperopt_sampler import HyperoptSampler

        return HyperoptSampler(plan.axes, _code, seed, random)
    return samplers.TPESampler(seed=seed, n_startup_trials=random, constant_liar=True)


def _pruner(plan: SearchPlan) -> optuna.pruners.BasePruner:
    from optuna import pruners

    if plan.pruning == "median":
        # The first measurements come from the warm-up.
        return pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)
    if plan.pruning == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
    return pruners.NopPruner()


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of what it may change, which is pinned, and of signs of life, which it leaves to us here."""
    import optuna

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _tune_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # A machine that loses power may lose its last trial; it is made again.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _texts(value: str | tuple[str, ...] | None) -> list[str]:
    return [value] if isinstance(value, str) else [*(value or ())]
