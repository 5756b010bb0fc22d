"""Tools of a project: opened from noria.toml, asked for by what serves, called by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from noria.apps import access, talk
from noria.backends import engine_probe
from noria.backends.chat_client import ChatClient
from noria.errors import Invalid, NoriaError
from noria.ports import Platform, ToolSource
from noria.settings import CallingSettings, EngineSettings, ToolSettings, bare_environment, environment
from noria.tools.calling import Complete, Dialogue, Form, converse
from noria.tools.process import Functions, Opened
from noria.tools.questions import ASPECTS
from noria.tools.toolbox import Tool, Toolbox
from noria.types import Endpoint, new_id

EVERY = ("*",)


@contextmanager
def toolbox(platform: Platform, allowed: Sequence[str], who: str) -> Iterator[Toolbox]:
    """The project's tools, of which those that the patterns name may be called; their processes end with the block.

    Sources that no pattern can mean are not started. Raises what is wrong with one, with its place in noria.toml.
    """
    with ExitStack() as stack:
        tools: list[Tool] = []
        for name, settings in platform.settings.tools.items():
            if not _meant(name, allowed):
                continue
            try:
                source = _source(platform.settings.root, name, settings)
            except Invalid as error:
                raise Invalid(error.fact, error.hint, where=platform.settings.place("tools", name)) from error
            stack.callback(source.close)
            several = settings.mcp is not None or bool(settings.tables) or [s.name for s in source.specs()] != [name]
            tools += [
                Tool(f"{name}.{spec.name}" if several else name, spec, source, settings.seconds, settings.result_chars)
                for spec in source.specs()
            ]
        log = platform.settings.state / "tools" / "calls.jsonl"
        yield Toolbox(tools, allowed, platform.clock, log, who)


def listed(box: Toolbox) -> list[dict[str, Any]]:
    """The tools as JSON."""
    return [
        {"tool": each.path, "name": each.spec.name, "description": each.spec.description,
         "parameters": each.spec.parameters, "seconds": each.seconds, "result_chars": each.result_chars}
        for each in box.tools
    ]  # fmt: skip


def ask(
    platform: Platform, task: str, question: str, allowed: Sequence[str], who: str, calling: CallingSettings
) -> Dialogue:
    """One question to what serves, with tools; raises Unavailable when nothing serves."""
    settings = platform.settings.tasks[task]
    endpoint = Endpoint(url=f"{talk.address(platform)}/v1", key=access.admin_key(platform), model=task)
    with toolbox(platform, allowed, who) as box, model(endpoint) as complete:
        turns = [{"role": "user", "content": question}]
        identity = new_id(platform.clock.now())
        return converse(complete, box, turns, calling, form_of(platform, settings.engine, calling), identity)


@contextmanager
def started(platform: Platform, engine: str) -> Iterator[Complete]:
    """The base model of an engine that is started for the block."""
    settings = platform.settings.engines[engine]
    log = platform.settings.state / "logs" / f"tools-{engine}.log"
    running = platform.engines[settings.kind].start(settings, {}, log)
    try:
        with model(running.endpoint, running.extra(None)) as complete:
            yield complete
    finally:
        running.close()


def form_of(platform: Platform, engine: str, calling: CallingSettings) -> Form:
    """How the model of an engine is told of tools: as the task says, else as its engine is known or seen to take them.

    An attached engine is asked, by one request, unless its table says `tools`; where nothing shows that its model calls
    tools in OpenAI's form, its answers are held to a schema.
    """
    if calling.form != "auto":
        return calling.form
    settings = platform.settings.engines[engine]
    if settings.url is not None:
        native = settings.tools == "native" if settings.tools else _calls(platform, settings, calling.max_tokens)
    else:
        # An outside engine that noria launches parses calls only where its table names the model's parser.
        native = settings.tools is not None and platform.engines[settings.kind].caps.tools
    return "native" if native else "schema"


def _calls(platform: Platform, settings: EngineSettings, tokens: int) -> bool:
    """Whether the model of an attached engine was seen to call a tool; one that is away was not."""
    try:
        attached = platform.engines[settings.kind].start(settings, {}, Path(os.devnull))
    except NoriaError:
        return False
    try:
        return engine_probe.calls_tools(attached.endpoint, tokens)
    finally:
        attached.close()


def called(box: Toolbox, name: str, arguments: str) -> tuple[str, bool]:
    """A call by hand: the result as text, and whether it went well."""
    tool = next((each for each in box.tools if name in (each.path, each.spec.name)), None)
    result, outcome = box.call(tool.spec.name if tool else name, arguments)
    return result.text, outcome == "ok"


def told(dialogue: Dialogue) -> dict[str, Any]:
    """A dialogue as JSON."""
    return {
        "answer": dialogue.answer, "ended": dialogue.ended, "because": dialogue.because, "steps": dialogue.steps,
        "calls": [{"name": each.name, "arguments": each.arguments, "outcome": each.outcome} for each in dialogue.made],
        "messages": dialogue.messages,
        "usage": {"prompt_tokens": dialogue.prompt_tokens, "completion_tokens": dialogue.completion_tokens},
    }  # fmt: skip


def arguments_of(text: str) -> str:
    """Arguments as typed, checked to be a JSON object; raises Invalid."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Invalid(f"'{text}' is not JSON: {error}", """such as '{"city": "Birmingham"}'""") from error
    if not isinstance(found, dict):
        raise Invalid(f"'{text}' is no JSON object", """such as '{"city": "Birmingham"}'""")
    return text


@contextmanager
def model(endpoint: Endpoint, extra: Mapping[str, JsonValue] | None = None) -> Iterator[Complete]:
    """What answers at an endpoint, until the end of the block."""
    client = ChatClient(endpoint, endpoint.model, "is it up? noria status; start it: noria up")

    def complete(body: dict[str, JsonValue]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = client.post(
            f"{endpoint.url}/chat/completions", {"model": endpoint.model, **(extra or {}), **body}
        )
        return found

    try:
        yield complete
    finally:
        client.close()


def _meant(name: str, allowed: Sequence[str]) -> bool:
    """Whether a source may have a tool that one of the patterns names."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, pattern.partition(".")[0]) for pattern in allowed)


def _source(root: Path, name: str, settings: ToolSettings) -> ToolSource:
    """Start what a table of noria.toml names."""
    if settings.mcp is not None:
        from noria.backends import mcp_client

        if settings.mcp.command:
            return mcp_client.launched(settings.mcp.command, root, bare_environment(settings.variables))
        key = environment(settings.mcp.key) if settings.mcp.key else None
        if settings.mcp.key and not key:
            raise Invalid(f"the variable '{settings.mcp.key}' is not set", f"export {settings.mcp.key}=…")
        return mcp_client.attached(str(settings.mcp.url), key)
    opened = Opened(name, settings.python or "", settings.options or None)
    if settings.tables:
        tables: dict[str, JsonValue] = {each: table.model_dump() for each, table in settings.tables.items()}
        opened = Opened(name, "tables", {"tables": tables, "rows": settings.rows, "memory_mb": settings.memory_mb})
    return Functions([opened], root, bare_environment(settings.variables))


def rate_rows(rates: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    """Rates as rows of a table, such as `3 of 36: 8 % (3 to 22)`."""

    def cell(each: Mapping[str, Any] | None) -> str:
        if each is None:
            return ""
        low, high = (f"{100 * each[end]:.0f}" for end in ("low", "high"))
        return f"{each['right']} of {each['of']}: {100 * each['share']:.0f} % ({low} to {high})"

    return [[kind, *(cell(found.get(aspect)) for aspect in ASPECTS)] for kind, found in rates.items()]
