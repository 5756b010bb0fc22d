"""The one definition of how tools become text for a model that calls none in OpenAI's form, and how its answer is read.

Such a model is held to a JSON schema: either one tool's name with its arguments, or an answer in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from noria.ports import ToolSpec

Turn = dict[str, Any]
"""A message in OpenAI's form."""

HEAD = (
    'You have tools. To call one, answer with JSON: {"name": NAME, "arguments": {…}}. '
    'To answer the user, answer with JSON: {"answer": TEXT}. '
    "Say only what the user, or the result of a tool, has told you; "
    "if no tool can tell it, answer that you do not know."
)
_THOUGHT = re.compile(r"^\s*<think>(.*?)(?:</think>\s*|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Wish:
    """A call that a model asks for; `arguments` is its JSON as it was written."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of a model: an answer, or calls; and what it thought, which is no part of the answer."""

    answer: str | None
    wishes: tuple[Wish, ...] = ()
    thought: str = ""


def native(specs: Sequence[ToolSpec]) -> list[JsonValue]:
    """Tools in OpenAI's form. `strict` has an engine hold the arguments to the schema, where that form allows it."""
    return [
        {"type": "function",
         "function": {"name": each.name, "description": each.description, "parameters": each.parameters,
                      **({"strict": True} if _strict(each.parameters) else {})}}
        for each in specs
    ]  # fmt: skip


def schema(specs: Sequence[ToolSpec]) -> dict[str, JsonValue]:
    """What an answer may be: a call of one tool, or words."""
    forms: list[JsonValue] = [
        {"type": "object", "properties": {"name": {"const": each.name}, "arguments": _closed(each.parameters)},
         "required": ["name", "arguments"], "additionalProperties": False}
        for each in specs
    ]  # fmt: skip
    words: JsonValue = {"type": "string", "minLength": 1}
    forms.append(
        {"type": "object", "properties": {"answer": words}, "required": ["answer"], "additionalProperties": False}
    )
    return {"anyOf": forms}


def told(specs: Sequence[ToolSpec]) -> str:
    """The tools as a system prompt."""
    lines = [HEAD, "Tools:"]
    for each in specs:
        lines.append(f"- {each.name}: {each.description}")
        lines += [f"    {name}: {_parameter(part)}" for name, part in _properties(each).items()]
    return "\n".join(lines)


def as_text(messages: Sequence[Mapping[str, Any]], specs: Sequence[ToolSpec]) -> list[Turn]:
    """A conversation in OpenAI's form as one without tools: calls are the model's own JSON, results come as a user."""
    heads = [str(each["content"]) for each in messages if each["role"] == "system"]
    turns: list[Turn] = [{"role": "system", "content": "\n\n".join([*heads, told(specs)])}]
    names: dict[str, str] = {}
    for each in messages:
        if each["role"] == "tool":
            text = f"Result of {names.get(each['tool_call_id'], 'the tool')}: {each['content']}"
            if turns[-1]["role"] == "user":
                turns[-1]["content"] += f"\n{text}"
            else:
                turns.append({"role": "user", "content": text})
        elif each["role"] == "assistant" and each.get("tool_calls"):
            for call in each["tool_calls"]:
                names[call["id"]] = call["function"]["name"]
            turns.append({"role": "assistant", "content": "\n".join(map(_called, each["tool_calls"]))})
        elif each["role"] == "assistant":
            turns.append({"role": "assistant", "content": json.dumps({"answer": each["content"]}, ensure_ascii=False)})
        elif each["role"] != "system":
            turns.append({"role": each["role"], "content": each["content"]})
    return turns


def read_native(message: Mapping[str, Any]) -> Said:
    """A turn in OpenAI's form. Raises ValueError, KeyError or TypeError for what is not of that form."""
    thought, content = thought_of(message)
    wishes = []
    for number, each in enumerate(message.get("tool_calls") or ()):
        given = each["function"].get("arguments")
        text = given if isinstance(given, str) else json.dumps(given or {})
        wishes.append(Wish(str(each.get("id") or f"call_{number}"), str(each["function"]["name"]), text or "{}"))
    return Said(None if wishes else content, tuple(wishes), thought)


def read_schema(message: Mapping[str, Any], number: int) -> Said:
    """A turn that was held to `schema`. Raises ValueError for what is not of it, such as an answer that was cut."""
    thought, content = thought_of(message)
    try:
        found = parsed(content)
    except ValueError as error:
        raise ValueError("the model's answer is no whole JSON") from error
    if isinstance(found, dict) and isinstance(found.get("name"), str):
        given = json.dumps(found.get("arguments", {}), ensure_ascii=False)
        return Said(None, (Wish(f"call_{number}", found["name"], given),), thought)
    if isinstance(found, dict) and isinstance(found.get("answer"), str):
        return Said(found["answer"], (), thought)
    raise ValueError("the model's answer is neither a call nor an answer")


def parsed(text: str) -> Any:
    """A model's JSON, in which half a surrogate pair is a question mark: no UTF-8 can be made of one.

    Raises ValueError, also for what is nested too deeply.
    """
    try:
        whole = json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
        return json.loads(whole)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def thought_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """What a model thought and what it said.

    Thoughts come as `reasoning` (vLLM, OpenRouter), as `reasoning_content` (DeepSeek, llama.cpp, SGLang), or within
    <think> at the beginning of the content where the engine has no parser for them.
    """
    parts = [message[key] for key in ("reasoning", "reasoning_content") if isinstance(message.get(key), str)]
    content = message.get("content") or ""
    if inside := _THOUGHT.match(content):
        parts.append(inside[1].strip())
        content = content[inside.end() :]
    # Some engines give the same thoughts under both names.
    return "\n".join(dict.fromkeys(part for part in parts if part)), content


def _called(call: Mapping[str, Any]) -> str:
    try:
        given = parsed(call["function"]["arguments"])
    except ValueError:
        given = call["function"]["arguments"]
    return json.dumps({"name": call["function"]["name"], "arguments": given}, ensure_ascii=False)


def _properties(spec: ToolSpec) -> Mapping[str, Any]:
    found = spec.parameters.get("properties")
    return found if isinstance(found, Mapping) else {}


def _parameter(part: Any) -> str:
    if not isinstance(part, Mapping):
        return "any value"
    kind = part.get("enum") or part.get("const") or part.get("type", "any value")
    shown = " | ".join(map(str, kind)) if isinstance(kind, list) else str(kind)
    return f"{shown}, {part['description']}" if part.get("description") else shown


def _strict(parameters: Mapping[str, Any]) -> bool:
    """Whether OpenAI's strict form allows the schema: every object closed, every property required."""
    if parameters.get("type") == "object":
        names = parameters.get("properties", {})
        if parameters.get("additionalProperties") is not False or set(parameters.get("required", ())) != set(names):
            return False
        return all(_strict(each) for each in names.values() if isinstance(each, Mapping))
    inner = [parameters.get("items"), *parameters.get("anyOf", ())]
    return all(_strict(each) for each in inner if isinstance(each, Mapping))


def _closed(parameters: Mapping[str, Any]) -> dict[str, JsonValue]:
    """An MCP server may leave its objects open; a model held to a schema would invent properties."""
    return {"additionalProperties": False, **parameters} if parameters.get("type") == "object" else {**parameters}
