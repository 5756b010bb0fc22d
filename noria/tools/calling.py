"""The loop: ask the model, run the tools that it calls, ask again, within bounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Literal

from pydantic import JsonValue

from noria.names import digest_of
from noria.settings import CallingSettings
from noria.tools import wording
from noria.tools.toolbox import FAULTS, Outcome, Toolbox, read
from noria.tools.wording import Said, Turn, Wish

Complete = Callable[[dict[str, JsonValue]], Mapping[str, Any]]
"""Posts a body to /v1/chat/completions, whose model it adds, and gives the reply; raises NoriaError."""
Form = Literal["native", "schema"]
Ended = Literal["answer", "steps", "calls", "faults", "seconds", "cut", "nonsense"]

PARALLEL: Final = 4
"""Calls of one turn that run at the same time."""
_SENT: Final = ("role", "content", "tool_calls", "tool_call_id")


@dataclass(frozen=True, slots=True)
class Made:
    """One call that was made and what the model was told of it."""

    name: str
    arguments: str
    outcome: Outcome
    result: str


@dataclass(slots=True)
class Dialogue:
    """One question with all that came of it.

    `messages` is the log in OpenAI's form; an assistant's `reasoning` stays there and is never sent again. `answer` is
    None unless `ended` is answer; `because` then says why there is none.
    """

    messages: list[Turn]
    answer: str | None = None
    ended: Ended = "answer"
    because: str = ""
    made: list[Made] = field(default_factory=list)
    steps: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def results(self) -> list[str]:
        """What tools told in it, faults left out."""
        return [each.result for each in self.made if each.outcome not in FAULTS]


def converse(
    ask: Complete,
    toolbox: Toolbox,
    messages: Sequence[Turn],
    limits: CallingSettings,
    form: Form,
    identity: str = "",
) -> Dialogue:
    """Answer the last message with the help of tools.

    Args:
        ask: the model.
        toolbox: the tools that may be called; without any the model is simply asked.
        messages: the conversation up to the question, in OpenAI's form.
        limits: how far it may go.
        form: native sends `tools`; schema describes them in words and holds the answer to a JSON schema.
        identity: of the conversation, for the record of calls.

    Returns:
        The dialogue; where a limit ended it, with the reason.

    Raises:
        NoriaError: what `ask` raises.
    """
    turning = _Turning(ask, toolbox, limits, form, identity, Dialogue(list(messages)))
    while not turning.over():
        turning.turn()
    return turning.dialogue


@dataclass(slots=True)
class _Turning:
    ask: Complete
    toolbox: Toolbox
    limits: CallingSettings
    form: Form
    identity: str
    dialogue: Dialogue
    ended: bool = False
    faults: int = 0
    began: float = field(default_factory=monotonic)
    known: dict[str, str] = field(default_factory=dict)
    """Results by tool and arguments."""

    def over(self) -> bool:
        """Whether there is an answer or a limit is reached."""
        if not self.ended and self.dialogue.steps >= self.limits.steps:
            self._end("steps", f"there was no answer after {self.limits.steps} steps")
        if not self.ended and monotonic() - self.began > self.limits.seconds:
            self._end("seconds", f"there was no answer after {self.limits.seconds:g} seconds")
        return self.ended

    def turn(self) -> None:
        """Ask once, and carry out what is asked for."""
        reply = self.ask(self._body())
        self.dialogue.steps += 1
        try:
            choice = reply["choices"][0]
            message, reason = dict(wording.parsed(json.dumps(choice["message"]))), choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, ValueError):
            self._end("nonsense", "the model's reply is not OpenAI's API")
            return
        usage = reply.get("usage") or {}
        self.dialogue.prompt_tokens += int(usage.get("prompt_tokens") or 0)
        self.dialogue.completion_tokens += int(usage.get("completion_tokens") or 0)
        try:
            said = self._read(message)
        except (ValueError, KeyError, TypeError) as error:
            self._misread(message, reason, str(error))
            return
        self.dialogue.messages.append(_logged(message, said))
        if said.wishes:
            self._carry_out(said.wishes)
        elif reason == "length":
            self._end("cut", f"the answer was cut after {self.limits.max_tokens} tokens")
        elif not (said.answer or "").strip():
            self._end("nonsense", "the model said nothing")
        else:
            self.dialogue.answer, self.ended = said.answer, True

    def _body(self) -> dict[str, JsonValue]:
        specs, log = self.toolbox.specs, self.dialogue.messages
        body: dict[str, JsonValue] = {"temperature": 0, "max_tokens": self.limits.max_tokens}
        if not specs or self.form == "native":
            body["messages"] = [{key: each[key] for key in _SENT if key in each} for each in log]
            return {**body, "tools": wording.native(specs)} if specs else body
        named: JsonValue = {"name": "turn", "strict": True, "schema": wording.schema(specs)}
        body["messages"] = [*wording.as_text(log, specs)]
        return {**body, "response_format": {"type": "json_schema", "json_schema": named}}

    def _read(self, message: Mapping[str, Any]) -> Said:
        if self.form == "native" or not self.toolbox.specs:
            return wording.read_native(message)
        return wording.read_schema(message, self.dialogue.steps)

    def _misread(self, message: Mapping[str, Any], reason: object, fault: str) -> None:
        if reason == "length":
            self._end("cut", f"the answer was cut after {self.limits.max_tokens} tokens")
        elif self.form == "native":
            self._end("nonsense", "the model's calls are not in OpenAI's form")
        else:
            self.dialogue.messages.append({"role": "assistant", "content": str(message.get("content"))})
            self.dialogue.messages.append({"role": "user", "content": f"{fault}; answer in the form that was given"})
            self._fault(fault)

    def _carry_out(self, wishes: Sequence[Wish]) -> None:
        if len(self.dialogue.made) + len(wishes) > self.limits.calls:
            self._end("calls", f"more than {self.limits.calls} calls of tools were wanted")
            return
        fresh = {_key(wish): wish for wish in reversed(wishes) if _key(wish) not in self.known}
        with ThreadPoolExecutor(PARALLEL) as pool:
            running = {key: pool.submit(self._run, wish) for key, wish in fresh.items()}
            found = {key: each.result() for key, each in running.items()}
        for wish in wishes:
            key = _key(wish)
            # Of equal calls the first one counts as made.
            result, outcome = found.pop(key) if key in found else (self._again(key), "repeated")
            self.known.setdefault(key, result)
            self.dialogue.made.append(Made(wish.name, wish.arguments, outcome, result))
            self.dialogue.messages.append({"role": "tool", "tool_call_id": wish.id, "content": result})
            if outcome in FAULTS:
                self._fault(f"{wish.name}: {result}")
            else:
                self.faults = 0

    def _run(self, wish: Wish) -> tuple[str, Outcome]:
        result, outcome = self.toolbox.call(wish.name, wish.arguments, self.identity)
        return result.text, outcome

    def _again(self, key: str) -> str:
        return f"{self.known[key]}\n(this very call was made before; its result is the same: answer the user now)"

    def _fault(self, last: str) -> None:
        self.faults += 1
        if self.faults >= self.limits.faults:
            self._end("faults", f"{self.faults} calls in a row failed, the last one with: {last}")

    def _end(self, ended: Ended, because: str) -> None:
        if not self.ended:
            self.dialogue.ended, self.dialogue.because, self.ended = ended, because, True


def log_of(messages: Sequence[Turn]) -> str:
    """A conversation for people, a message a line, as `role content`."""
    lines = []
    for each in messages:
        content, calls = each.get("content"), each.get("tool_calls")
        parts = ["null" if content is None else str(content)]
        if calls:
            shown = [f"{call['function']['name']}({call['function']['arguments']})" for call in calls]
            parts = ([] if content is None else parts) + [f"calls {', '.join(shown)}"]
        lines.append(f"{each['role']:<10} {' '.join(parts)}")
        lines += [f"{'':<10} ({key}) {each[key]}" for key in ("reasoning", "reasoning_content") if each.get(key)]
    return "\n".join(lines)


def _key(wish: Wish) -> str:
    given = read(wish.arguments)
    return f"{wish.name} {digest_of(wish.arguments if given is None else given)}"


def _logged(message: Mapping[str, Any], said: Said) -> Turn:
    """The model's turn as the log has it, whichever form it had."""
    turn: Turn = {"role": "assistant", "content": said.answer}
    if said.wishes:
        turn["tool_calls"] = [
            {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
            for each in said.wishes
        ]
    kept = {key: message[key] for key in ("reasoning", "reasoning_content") if message.get(key)}
    return {**turn, **(kept or ({"reasoning": said.thought} if said.thought else {}))}
