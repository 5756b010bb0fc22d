"""What is to serve a task, by what was released and by what is there."""

from __future__ import annotations

from collections.abc import Callable

from noria import adapters, prompts
from noria.deployment.routing import Wanted
from noria.deployment.slices import Trial, trial_of
from noria.errors import NoriaError
from noria.ports import Platform
from noria.types import Candidate, Deployment, Ref


def wanted(
    platform: Platform, task: str, base: tuple[Ref, str], live: Deployment | None, report: Callable[[str], None]
) -> Wanted:
    """The released candidates of a task as far as they can serve, else its engine's base model.

    Args:
        platform: the opened back-ends.
        task: a task of the settings.
        base: the base model of its engine, and its quantization.
        live: what the ledger says.
        report: told why a candidate cannot serve.
    """
    settings = platform.settings.tasks[task]
    plain = Candidate(
        task=task, base=base[0], adapter=None, engine=settings.engine, quantization=base[1],
        prompt=prompts.definition(settings.system),
    )  # fmt: skip
    champion = live.champion if live and live.champion and _fits(platform, live.champion, plain, report) else plain
    trial = trial_of(live)
    if trial is None or trial.share(settings.release) == 0:
        return _with_adapters(platform, champion)
    both = all(_fits(platform, each, plain, report) for each in (trial.challenger, trial.control))
    return _with_adapters(platform, champion, trial if both else None)


def promoted(platform: Platform, engine: str, report: Callable[[str], None]) -> frozenset[Ref]:
    """The adapters with which an engine serves its tasks; raises as `EngineKind.base` does, and Unavailable."""
    tasks = [name for name, each in platform.settings.tasks.items() if each.engine == engine]
    if not tasks:
        return frozenset()
    settings = platform.settings.engines[engine]
    base = platform.engines[settings.kind].base(settings)
    found = (wanted(platform, name, base, platform.deployments.current(name), report) for name in tasks)
    return frozenset[Ref]().union(*(each.adapters for each in found))


def _with_adapters(platform: Platform, champion: Candidate, trial: Trial | None = None) -> Wanted:
    tried = (trial.challenger, trial.control) if trial else ()
    named = {each.adapter for each in (champion, *tried) if each.adapter is not None}
    # Their files are verified when an engine starts, where a fault keeps that engine alone from starting.
    return Wanted(champion, trial, adapters.weights(platform.lake, named))


def _fits(platform: Platform, candidate: Candidate, plain: Candidate, report: Callable[[str], None]) -> bool:
    """Whether a candidate can serve: made for the present base, engine and prompt, and all of it is there."""
    missing = [ref for ref in (candidate.adapter, candidate.index) if ref and not platform.lake.has(ref)]
    if missing or (candidate.base, candidate.engine) != (plain.base, plain.engine):
        return False
    try:
        wording = adapters.wording_of(platform.lake, candidate.adapter)
    except NoriaError as error:
        report(f"'{candidate.ref}' cannot serve: {error.fact}")
        return False
    system = platform.settings.tasks[candidate.task].system
    return candidate.prompt == prompts.definition(system, wording)
