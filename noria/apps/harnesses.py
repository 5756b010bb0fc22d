"""Outside harnesses against what serves: who is asked, what runs, where the report goes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from pydantic import JsonValue

from noria.apps import access, aside, talk
from noria.backends import garak, lm_eval
from noria.backends.chat_client import on_this_machine
from noria.backends.harness import Found, Target
from noria.errors import Conflict, Invalid, NotFound, Unavailable
from noria.evaluation import benign, history
from noria.evaluation.harness import HarnessReport, store
from noria.ports import Platform, Progress
from noria.settings import environment
from noria.types import Ref, digest_of

TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asked for; without `url` it is the running `noria up`, without `model` the task.

    With `candidate`, a ref of one that some report knows, it is that candidate, served for the time of the run.
    """

    task: str
    url: str | None = None
    model: str | None = None
    key: str | None = None
    """Name of the environment variable that holds the key of `url`."""
    limit: int | None = None
    include: Path | None = None
    tokenizer: Path | None = None
    benign: Path | None = None
    tokens: int = 100
    candidate: str | None = None


def run_lm_eval(
    platform: Platform, order: Order, tasks: Sequence[str], progress: Progress
) -> tuple[Ref, HarnessReport]:
    """Run tasks of lm-eval from the folder `order.include`; returns the report and its ref."""
    include = order.include
    if include is None or not include.is_dir():
        raise Invalid(f"'{include or ''}' is not a folder of tasks", "name one: --include examples/harness")
    folder = include.resolve()

    def work(target: Target, out: Path) -> Found:
        tokenizer = partial(_tokenizer, platform, order)
        return lm_eval.run(target, tasks, folder, out, progress, tokenizer, limit=order.limit)

    return _run(platform, order, lm_eval.NAME, lm_eval.VERSION, work)


def run_garak(platform: Platform, order: Order, probes: Sequence[str], progress: Progress) -> tuple[Ref, HarnessReport]:
    """Run probes of garak, and ask harmless questions beside them; returns the report and its ref."""
    asked = benign.questions(order.benign)

    def work(target: Target, out: Path) -> Found:
        found = garak.run(target, probes, out, progress, cap=order.limit or 8, max_tokens=order.tokens)
        helped = benign.answered(lambda question: _ask(target, question, order.tokens)[0], asked, progress)
        return Found({**found.scores, benign.NAME: helped}, found.files, found.settings, found.notes)

    return _run(platform, order, garak.NAME, garak.VERSION, work)


def target(platform: Platform, order: Order) -> Target:
    """Whom to ask; raises Unavailable when nothing serves, Invalid for a variable without a key."""
    if order.url is None:
        return Target(f"{talk.address(platform)}/v1", access.admin_key(platform), order.model or order.task)
    key = environment(order.key) if order.key else "none"
    if not key:
        raise Invalid(f"the variable '{order.key}' is not set", f"export {order.key}=…")
    return Target(order.url.rstrip("/"), key, order.model or order.task)


def _run(
    platform: Platform, order: Order, name: str, version: str, work: Callable[[Target, Path], Found]
) -> tuple[Ref, HarnessReport]:
    if order.candidate is None:
        return _aimed(platform, order, target(platform, order), name, version, work)
    if order.url is not None:
        raise Invalid("--candidate and --url cannot both say whom to ask", "leave one of them out")
    known = history.candidates(list(history.reports(platform, order.task)))
    if order.candidate not in known:
        raise NotFound(f"no report knows '{order.candidate}'", "list candidates: noria evaluate list")
    with aside.serving(platform, order.task, known[order.candidate]) as aimed:
        return _aimed(platform, order, aimed, name, version, work)


def _aimed(
    platform: Platform, order: Order, aimed: Target, name: str, version: str, work: Callable[[Target, Path], Found]
) -> tuple[Ref, HarnessReport]:
    began, candidate = time.monotonic(), _serving(aimed)
    # What a harness leaves behind is kept until the next run: it says why one failed.
    folder = platform.settings.state / "harness" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = work(aimed, folder)
    if (now := _serving(aimed)) != candidate:
        raise Conflict(f"'{candidate}' was replaced by '{now}' while {name} ran", "run it again")
    settings: dict[str, JsonValue] = {**found.settings, "seconds": round(time.monotonic() - began, 1)}
    report = HarnessReport(
        harness=name, version=version, task=order.task, model=aimed.model, candidate=candidate,
        at=platform.clock.now(), settings=settings, scores=found.scores, notes=found.notes,
    )  # fmt: skip
    return store(platform, report, found.files, began).ref, report


def _serving(aimed: Target) -> str:
    """Ref of what answers there: the header of a noria, else the name that an attached engine's base has."""
    served = _ask(aimed, "Hello", 1)[1]
    base = Ref(kind="base", name=aimed.model, digest=digest_of({"url": aimed.url, "model": aimed.model}))
    return served or str(base)


def _ask(aimed: Target, question: str, tokens: int) -> tuple[str, str | None]:
    body = {
        "model": aimed.model, "messages": [{"role": "user", "content": question}], "max_tokens": tokens,
        "temperature": 0,
    }  # fmt: skip
    headers = {"authorization": f"Bearer {aimed.key}", "x-noria-train": "no"}
    try:
        answer = httpx.post(
            f"{aimed.url}/chat/completions", json=body, headers=headers, timeout=TIMEOUT,
            trust_env=not on_this_machine(aimed.url),
        )  # fmt: skip
        told = answer.json()
        if answer.status_code != 200:
            raise Unavailable(
                f"'{aimed.url}' refused '{aimed.model}': {told['error']['message']}", "look: noria status"
            )
        return str(told["choices"][0]["message"]["content"] or ""), answer.headers.get("x-noria-served-by")
    except httpx.HTTPError as error:
        raise Unavailable(
            f"'{aimed.url}' does not answer: {error}", "is it up? noria status; start it: noria up"
        ) from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Unavailable(f"'{aimed.url}' answered something that is not OpenAI's API", "look: noria status") from error


def _tokenizer(platform: Platform, order: Order) -> Path | None:
    """The folder that was named; for a task on a launched engine, the base model's own tokenizer."""
    if order.tokenizer is not None or order.url is not None:
        return order.tokenizer.resolve() if order.tokenizer else None
    task = platform.settings.tasks[order.task]
    if platform.settings.engines[task.engine].model is None:
        return None
    return platform.trainer.tokenizer(platform.model(task.base))
