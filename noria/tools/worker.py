"""The process in which functions run: it may be killed at any time, and nothing of noria's is lost with it.

It reads lines of JSON and writes lines of JSON: first the functions to open, then one call after the other. What a
function prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TextIO

from noria.errors import Invalid, NoriaError, NotFound
from noria.tools.functions import FunctionTool

GROUP = "noria.tools"
LOOK = 0.5


def main() -> int:
    """Answer calls until standard input ends."""
    _die_with(os.getppid())
    # The lines come in and go out by descriptors that no function knows: what reads standard input finds none.
    orders = os.fdopen(os.dup(0), encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # Whatever prints is heard on standard error.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    first = json.loads(orders.readline())
    os.chdir(first["folder"])
    sys.path.insert(0, first["folder"])
    tools = _opened(first["orders"], out)
    if tools is None:
        return 1
    for line in orders:
        order = json.loads(line)
        found = tools[order["name"]].call(order["arguments"], order["limit"])
        _say(out, {"text": found.text, "outcome": found.outcome})
    return 0


def functions(name: str, target: str, options: Mapping[str, Any] | None) -> list[FunctionTool]:
    """The tools that a target gives: itself, under `name`, or with options what it makes of them.

    Raises NotFound, Invalid and Unavailable.
    """
    found = load(target)
    if options is None:
        return [FunctionTool(found, name)]
    made = found(**options)
    if isinstance(made, Mapping):
        return [FunctionTool(each, own) for own, each in made.items()]
    return [FunctionTool(made, name)]


def load(target: str) -> Callable[..., Any]:
    """What `package.module:function` or an entry point of the group `noria.tools` names; raises NotFound."""
    module, colon, attribute = target.partition(":")
    if not colon:
        doors = {door.name: door for door in entry_points(group=GROUP)}
        if target not in doors:
            raise NotFound(
                f"there is no tool '{target}'", f"known are: {', '.join(sorted(doors))}, or give MODULE:NAME"
            )
        module, _, attribute = doors[target].value.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise NotFound(f"'{target}' is not there: {error}", "is it beside noria.toml, or installed?") from error
    if not callable(found):
        raise Invalid(f"'{target}' is not a function", "name one")
    return found  # type: ignore[no-any-return]


def _opened(orders: Sequence[Mapping[str, Any]], out: TextIO) -> dict[str, FunctionTool] | None:
    """Open the functions and say what they are; None after saying why not."""
    tools: dict[str, FunctionTool] = {}
    try:
        for each in orders:
            for tool in functions(each["name"], each["target"], each["options"]):
                tools[tool.spec.name] = tool
    except NoriaError as error:
        _say(out, {"kind": type(error).__name__, "fact": error.fact, "hint": error.hint})
        return None
    except Exception as error:  # noqa: BLE001  a user's module may raise anything when it is imported
        fact = f"'{each['target']}' cannot be opened: {type(error).__name__}: {error}"
        _say(out, {"kind": "Invalid", "fact": fact, "hint": "correct it, and try: noria tools list"})
        return None
    _say(out, [{"name": each.spec.name, "description": each.spec.description, "parameters": each.spec.parameters}
               for each in tools.values()])  # fmt: skip
    return tools


def _say(out: TextIO, value: object) -> None:
    out.write(json.dumps(value) + "\n")
    out.flush()


def _die_with(parent: int) -> None:
    """End this process within a second of its parent's end, also while a function runs."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
