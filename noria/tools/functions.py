"""Tools from plain typed functions: schema from signature and docstring, arguments checked, results as text."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired, get_type_hints

import typing_extensions
from pydantic import ConfigDict, Field, JsonValue, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from noria.errors import Invalid, NoriaError
from noria.ports import ToolResult, ToolSpec

NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
"""What OpenAI's API takes as the name of a function."""


class FunctionTool:
    """One function as a tool; `spec` is what a model is told of it."""

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:
        """Raises Invalid for a function that cannot be one, with the parameter at fault."""
        self._function = function
        self._form = _form(function)
        self.spec = ToolSpec(
            name=checked(name or function.__name__),
            description=_head(function),
            parameters=plain_schema(self._form.json_schema()),
        )

    def call(self, arguments: Mapping[str, JsonValue], limit: int) -> ToolResult:
        """Check the arguments, run the function (an async one to its end) and tell its result. Never raises."""
        try:
            # As JSON, so that a date is one by its text, while "3" is no number.
            given = self._form.validate_json(json.dumps(arguments), strict=True)
        except ValidationError as error:
            return ToolResult(_told(error), "invalid")
        try:
            found = self._function(**given)
            if inspect.isawaitable(found):
                found = asyncio.run(_awaited(found))
            return ToolResult(cut(text_of(found), limit))
        except NoriaError as error:
            return ToolResult(cut(f"{error.fact}{f' ({error.hint})' if error.hint else ''}", limit), "failed")
        except Exception as error:  # noqa: BLE001  whatever a function raises is told to the model
            return ToolResult(cut(f"{type(error).__name__}: {error}", limit), "failed")


class InProcess:
    """Port `ToolSource` for functions that are trusted: they run where they are called, and nothing stops them."""

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        self._tools = {tool.spec.name: tool for tool in map(FunctionTool, functions)}

    def specs(self) -> Sequence[ToolSpec]:
        """Its tools."""
        return [tool.spec for tool in self._tools.values()]

    def call(self, name: str, arguments: Mapping[str, JsonValue], seconds: float, limit: int) -> ToolResult:
        """Run one of them to its end."""
        return self._tools[name].call(arguments, limit)

    def close(self) -> None:
        """Nothing runs."""


def text_of(value: object) -> str:
    """A result as text: a string as it is, anything else as JSON. Raises Invalid for what has no JSON form."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(to_jsonable_python(value), ensure_ascii=False)
    except (PydanticSerializationError, ValueError) as error:
        raise Invalid(f"its result is a '{type(value).__name__}', which has no JSON form") from error


def cut(text: str, limit: int) -> str:
    """At most `limit` characters; what is cut says so at its end."""
    if len(text) <= limit:
        return text
    note = f" … (cut: {len(text):,} characters in all)"
    return text[: max(0, limit - len(note))] + note[-limit:]


def checked(name: str) -> str:
    """The name, if a model can be told it; raises Invalid."""
    if not NAME.match(name):
        raise Invalid(f"'{name}' is no name for a tool", "use letters, digits, _ and -, 64 at most")
    return name


def plain_schema(schema: Mapping[str, Any]) -> dict[str, JsonValue]:
    """A schema without `$defs` and titles, so that it may stand inside another one; raises Invalid for a recursive one.

    References are those that pydantic and MCP servers make: `#/$defs/NAME` (JSON Schema 2020-12).
    """
    kept = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    found = _inlined(schema, kept, (), names=False)
    assert isinstance(found, dict)
    return {"properties": {}, **found} if found.get("type") == "object" else found


def _inlined(part: Any, kept: Mapping[str, Any], within: tuple[str, ...], names: bool) -> Any:
    """`names` where the keys are names of properties, not words of JSON Schema."""
    if isinstance(part, list):
        return [_inlined(each, kept, within, names=False) for each in part]
    if not isinstance(part, Mapping):
        return part
    if not names and isinstance(part.get("$ref"), str):
        name = part["$ref"].rpartition("/")[2]
        if name in within or name not in kept:
            raise Invalid(f"the schema refers to '{part['$ref']}', within itself or to nothing", "use flat parameters")
        beside = {key: value for key, value in part.items() if key != "$ref"}
        return _inlined({**kept[name], **beside}, kept, (*within, name), names=False)
    return {
        key: _inlined(value, kept, within, names=not names and key == "properties")
        for key, value in part.items()
        if names or key not in ("$defs", "definitions", "title", "$schema")
    }


async def _awaited(found: Any) -> Any:
    return await found


def _form(function: Callable[..., Any]) -> TypeAdapter[dict[str, Any]]:
    """What the arguments must look like: a dictionary with the parameters' types, in which defaults may be missing."""
    name = getattr(function, "__name__", str(function))
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise Invalid(f"tool '{name}': a type of its signature is not known: {error}", "import it") from error
    texts, fields = arguments_of(inspect.getdoc(function) or ""), dict[str, Any]()
    for each in inspect.signature(function).parameters.values():
        if each.kind is not each.KEYWORD_ONLY and each.kind is not each.POSITIONAL_OR_KEYWORD:
            raise Invalid(f"tool '{name}': '{each}' cannot be described to a model", "name every parameter")
        if each.name not in hints:
            raise Invalid(f"tool '{name}': parameter '{each.name}' has no type", f"write {each.name}: str, or another")
        hint, text = hints[each.name], texts.get(each.name)
        hint = Annotated[hint, Field(description=text)] if text else hint
        fields[each.name] = hint if each.default is each.empty else NotRequired[hint]
    # Not a model: parameters may have the names of a model's own methods. No checker knows one made at run time.
    made: Any = vars(typing_extensions)["TypedDict"](name, fields)
    made.__pydantic_config__ = ConfigDict(extra="forbid")
    try:
        return TypeAdapter(made)
    except (PydanticUserError, NameError) as error:
        raise Invalid(f"tool '{name}': {str(error).splitlines()[0]}", "use plain types and pydantic models") from error


def _head(function: Callable[..., Any]) -> str:
    """The docstring up to its first section, on one line; raises Invalid without one: a model cannot guess."""
    text = inspect.getdoc(function) or ""
    head = re.split(r"^(?:Args|Arguments|Returns|Raises|Yields|Example|Examples|Note):\s*$", text, flags=re.M)[0]
    if not head.strip():
        raise Invalid(f"tool '{function.__name__}' has no docstring", "say in a sentence what it gives")
    return " ".join(head.split())


def arguments_of(docstring: str) -> dict[str, str]:
    """Texts of the section `Args:` of a docstring in Google's style, by parameter."""
    section = re.search(r"^(?:Args|Arguments):[ \t]*\n((?:[ \t]+\S.*\n?|[ \t]*\n)*)", docstring, flags=re.M)
    if section is None:
        return {}
    found: dict[str, str] = {}
    lines = [line for line in section[1].splitlines() if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    name = ""
    for line in lines:
        if len(line) - len(line.lstrip()) == margin and (entry := re.match(r"\s*(\w+)\s*(?:\([^)]*\))?:\s*(.*)", line)):
            name, found[entry[1]] = entry[1], entry[2].strip()
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _told(error: ValidationError) -> str:
    """What is wrong with the arguments, in words that a model can act on."""
    faults = []
    for each in error.errors(include_url=False)[:5]:
        place = ".".join(str(part) for part in each["loc"]) or "the arguments"
        wrong = "is missing" if each["type"] == "missing" else each["msg"].lower()
        if each["type"] == "extra_forbidden":
            wrong = "is no parameter of this tool"
        shown = "" if each["type"] in ("missing", "extra_forbidden") else f" (it is {each['input']!r:.80})"
        faults.append(f"'{place}' {wrong}{shown}")
    return "bad arguments: " + "; ".join(faults)
