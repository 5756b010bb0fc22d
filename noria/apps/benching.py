"""What `noria bench` does: start the contenders, ask them all the same, and put down what it took."""

from __future__ import annotations

import os
import platform as system
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from noria.apps import bench_quality
from noria.apps.bench_lineup import Contender, Wish, lineup, reference
from noria.backends import machine
from noria.backends.load_client import LoadClient
from noria.backends.process_meter import ProcessMeter
from noria.backends.scratch import temporary
from noria.engines import Reply
from noria.errors import Invalid, Unavailable
from noria.evaluation import scenarios, speed
from noria.evaluation.scenarios import Ask, Scenario
from noria.evaluation.speed import Check, Round
from noria.ports import Clock, Launched, Platform, Progress, Tokenizer
from noria.types import Endpoint, new_id

ROUNDS: Final = 3
_FREE: Final = 0.7
"""Of the free memory, what engines that run side by side may be thought to take."""
_PROBE: Final = 24


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be measured; None where the scenario or the engine's table says."""

    engines: tuple[str, ...] = ()
    model: str | None = None
    precisions: tuple[str, ...] = ()
    scenario: tuple[str, ...] = ("lab",)
    concurrency: tuple[int, ...] = ()
    requests: int | None = None
    max_tokens: int | None = None
    rounds: int = ROUNDS
    cache: bool = False
    """Let engines answer from what they remember of earlier prompts."""
    natural: bool = False
    """Let answers end where the model ends them, for engines too that could be told to go on."""
    apart: bool = False
    quality: bool = True


@dataclass
class _Running:
    """A contender that answers; `natural` are its answers where it may end, by scenario."""

    contender: Contender
    client: LoadClient
    pids: tuple[int, ...]
    ignores: bool
    cache: str
    tokenizer: Tokenizer | None = None
    natural: dict[Ask, Reply] = field(default_factory=dict)


@dataclass
class _Cell:
    """All rounds of one contender, scenario and concurrency."""

    rounds: list[Round] = field(default_factory=list)
    peak: int | None = None


Key = tuple[str, str, str, int]


def bench(order: Order, platform: Platform | None, clock: Clock, progress: Progress) -> dict[str, Any]:
    """Measure; returns the run, ready for JSON. Raises NotFound, Invalid, Unavailable."""
    asked = [each for name in order.scenario for each in _scenarios(name, platform)]
    levels = {each.name: order.concurrency or each.concurrency for each in asked}
    wish = Wish(
        order.model,
        order.precisions,
        max(max(each) for each in levels.values()),
        max(ask.characters for each in asked for ask in each.asks),
        max(order.max_tokens or each.max_tokens for each in asked),
    )
    began = clock.now()
    with temporary("noria-bench.") as work:
        contenders, notes = lineup(order.engines, wish, platform, work, progress)
        _check_texts(contenders, asked)
        beside = not order.apart and _fit_together(contenders)
        rows: list[dict[str, Any]] = []
        texts: dict[str, dict[Ask, str]] = {}
        for group in [contenders] if beside else [[each] for each in contenders]:
            rows += _group(group, asked, levels, order, work, texts, progress)
        source = reference(contenders, order.model)
        wanted = order.quality and not all(each.embeds for each in asked)
        quality = bench_quality.measured(contenders, source, work, progress) if wanted else {}
    for row in rows:
        row |= quality.get(row.pop("label"), bench_quality.UNMEASURED)
    for number in speed.fastest(rows):
        rows[number]["fastest"] = True
    return {
        "id": new_id(began)[-12:],
        "at": began.isoformat(timespec="seconds"),
        "machine": {"chip": machine.chip() or system.machine(), "cores": os.cpu_count(), "cards": len(machine.cards())},
        "decoding": {"temperature": 0, "seed": 0, "prompt_cache": "on" if order.cache else "off where it can be"},
        "order": {"side_by_side": beside and len(contenders) > 1, "rounds": order.rounds},
        "reference": source.name if source else None,
        "notes": notes + _remarks(rows),
        "rows": rows,
    }


def _scenarios(name: str, platform: Platform | None) -> tuple[Scenario, ...]:
    if name != "traffic":
        return scenarios.named(name)
    if platform is None:
        raise Invalid("logged questions are a project's, and there is none here", "run it in the project's folder")
    found, _ = platform.traffic.read(platform.traffic.mark())
    return (scenarios.of_traffic(each.messages for each in found if each.api == "chat" and each.status == 200),)


def _check_texts(contenders: Sequence[Contender], asked: Sequence[Scenario]) -> None:
    for each in contenders:
        caps = each.kind.caps
        if not caps.text and not all(one.embeds for one in asked):
            raise Invalid(f"engine '{each.engine}' writes no text", "noria bench … --scenario embeddings")
        if not caps.embeddings and each.weights is not None and any(one.embeds for one in asked):
            raise Invalid(f"engine '{each.engine}' makes no vectors", "an engine of kind encoder or infinity, or a url")


def _fit_together(contenders: Sequence[Contender]) -> bool:
    # What has no plan is not known to fit beside others.
    known = all(each.planned or each.weights is None for each in contenders)
    return known and sum(each.planned for each in contenders) <= _FREE * (machine.free_memory() or 0)


def _group(
    group: Sequence[Contender],
    asked: Sequence[Scenario],
    levels: Mapping[str, Sequence[int]],
    order: Order,
    work: Path,
    texts: dict[str, dict[Ask, str]],
    progress: Progress,
) -> list[dict[str, Any]]:
    """The rows of contenders that run side by side: A B A B, so that what else goes on meets all alike."""
    cells: dict[Key, _Cell] = {}
    with ExitStack() as running:
        ready = []
        for number, each in enumerate(group):
            progress.update("starting and warming up", number, len(group), each.label)
            ready.append(_started(each, asked, order, work, running))
        plan = [(each, level) for each in asked for level in levels[each.name]]
        for number, (scenario, level) in enumerate(plan):
            for time in range(order.rounds):
                for one in ready:
                    note = f"{scenario.name} at {level}: {one.contender.label}"
                    progress.update("rounds", number * order.rounds + time, len(plan) * order.rounds, note)
                    key = (one.contender.engine, one.contender.precision, scenario.name, level)
                    _round(one, scenario, level, order, cells.setdefault(key, _Cell()))
        progress.update("rounds", len(plan) * order.rounds, len(plan) * order.rounds)
        rows = []
        for scenario, level in plan:
            for one in ready:
                said = {ask: reply.text for ask, reply in one.natural.items() if ask in scenario.asks}
                first = texts.setdefault(scenario.name, said)
                cell = cells[one.contender.engine, one.contender.precision, scenario.name, level]
                rows.append(_row(one, scenario, level, order, cell, speed.likeness(said, first)))
    return rows


def _started(of: Contender, asked: Sequence[Scenario], order: Order, work: Path, running: ExitStack) -> _Running:
    engine = of.kind.start(of.settings, {}, work / f"{of.engine}-{of.precision}.log".replace("/", "_"))
    running.callback(engine.close)
    pids = engine.pids if isinstance(engine, Launched) else ()
    one = prepared(of, engine.endpoint, pids, order, all(each.embeds for each in asked))
    running.callback(one.client.close)
    for scenario in asked:
        # The first request of an engine is slower than all others, and what it says where it may end is kept.
        if scenario.embeds:
            one.client.embed(scenario.asks[0].texts)
            continue
        fresh = [ask for ask in dict.fromkeys(scenario.asks) if ask not in one.natural]
        limit = order.max_tokens or scenario.max_tokens
        replies, _ = one.client.all([_messages(ask) for ask in fresh], limit, 1)
        one.natural |= dict(zip(fresh, replies, strict=True))
        if fresh and all(reply.error for reply in replies):
            raise Unavailable(f"{of.label} answers nothing: {replies[0].error}", "look at it by hand")
    return one


def prepared(of: Contender, endpoint: Endpoint, pids: tuple[int, ...], order: Order, embeds: bool) -> _Running:
    """A client that has seen what the engine takes: a field counts where the answer changes by it."""
    client = LoadClient(endpoint)
    if embeds:
        return _Running(of, client, pids, False, "none")
    first = client.ask([{"role": "user", "content": "Say yes."}], 1)
    if first.error:
        client.close()
        raise Unavailable(f"{of.label} does not answer: {first.error}", "look at it by hand")
    cache = "the engine's own"
    if not order.cache and of.kind.caps.models and client.takes("cache_prompt", False):
        client.use({"cache_prompt": False})
        cache = "off"
    ignores = False
    if not order.natural:
        told = client.ask([{"role": "user", "content": "Say yes."}], _PROBE, {"ignore_eos": True})
        ignores = not told.error and told.tokens == _PROBE
    tokenizer = _tokenizer(of) if first.tokens is None else None
    return _Running(of, client, pids, ignores, cache, tokenizer)


def _tokenizer(of: Contender) -> Tokenizer | None:
    """For engines that do not count what they stream."""
    if of.weights is None or not of.weights.is_dir():
        return None
    from noria.backends.chat_tokenizer import ChatTokenizer

    return ChatTokenizer(of.weights)


def _messages(ask: Ask) -> list[dict[str, str]]:
    return [{"role": each.role, "content": each.content} for each in ask.messages]


def _round(one: _Running, scenario: Scenario, level: int, order: Order, cell: _Cell) -> None:
    asks = scenarios.sent(scenario, order.requests, level)
    limit = order.max_tokens or scenario.max_tokens
    extra: dict[str, Any] = {"ignore_eos": True} if one.ignores and _fixed(scenario) else {}
    with ProcessMeter(one.pids) as meter:
        replies, seconds = one.client.all([_messages(ask) or ask.texts for ask in asks], limit, level, extra)
    if one.tokenizer is not None:
        replies = [counted(reply, one.tokenizer) for reply in replies]
    others = None if meter.busy is None or not one.pids else meter.busy / seconds
    cell.rounds.append(Round(tuple(asks), tuple(replies), seconds, meter.cpu, others, meter.joules))
    cell.peak = max(meter.peak or 0, cell.peak or 0) or None


def counted(reply: Reply, tokenizer: Tokenizer) -> Reply:
    """With tokens as the model's own tokenizer counts them, where the engine does not tell; without its end token."""
    if reply.error or reply.tokens is not None:
        return reply
    tokens = max(0, len(tokenizer.answer(reply.text)) - 1)
    return Reply(
        reply.seconds, reply.first, tokens, reply.prompt_tokens, reply.cached, reply.finish, reply.text, reply.vectors
    )


def _fixed(scenario: Scenario) -> bool:
    """Whether answers may be held to one length: not where a right one is looked for."""
    return not any(ask.expects for ask in scenario.asks)


def _row(
    one: _Running, scenario: Scenario, level: int, order: Order, cell: _Cell, likeness: float | None
) -> dict[str, Any]:
    of, limit = one.contender, order.max_tokens or scenario.max_tokens
    exactly = one.ignores and _fixed(scenario)
    natural = {ask: len(reply.text.split()) for ask, reply in one.natural.items()}
    settings = of.settings
    return {
        "label": of.label,
        "engine": of.engine,
        "precision": of.precision,
        "scenario": scenario.name,
        "concurrency": level,
        **speed.row(cell.rounds, Check(limit, exactly, natural)),
        "weights_gib": of.weights_gib,
        "kv_gib": of.kv_gib,
        "peak_gib": round(cell.peak / 2**30, 4) if cell.peak else None,
        "likeness": likeness,
        "max_tokens": limit,
        "ignore_eos": exactly,
        "prompt_cache": one.cache,
        "counted_by": "tokenizer" if one.tokenizer is not None else "usage",
        "slots": None if settings.url else settings.slots,
        "context": None if settings.url else settings.context,
        "threads": settings.threads,
        "kind": settings.kind,
    }


def _remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know to compare the rows."""
    found = []
    if busy := [each["others_cores"] for each in rows if (each["others_cores"] or 0) > 0.2]:
        found.append(f"other programs kept up to {max(busy):.1f} cores busy: repeat it on a quiet machine")
    if len({each["ignore_eos"] for each in rows if each["tokens_per_s"] is not None and not each["expected"]}) > 1:
        found.append("some engines end an answer where the model does, others were told to go on: compare by token")
    if any(each["void"] for each in rows):
        found.append("void rows: more than a tenth of the answers were none; they have no speed")
    return found
