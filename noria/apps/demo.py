"""`noria demo`: two turns of the wheel on a made-up help desk, from nothing to a better model that serves."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from noria import cycle, settings, wiring
from noria.apps import access, talk, views
from noria.apps.memory import PeakMemory
from noria.apps.screen import Screen, table_of
from noria.backends.child import spawn, stop
from noria.errors import Conflict, NotFound, Unavailable
from noria.evaluation.answers import Examiner, recorded, sealed_rows
from noria.evaluation.metrics import Answered, find
from noria.ports import Platform
from noria.registry import lineage
from noria.stats.paired import of_scores
from noria.types import Interval, Report

TASK = "helpdesk"
CORPUS = (
    "ai.yml",
    "computers.yml",
    "emotion.yml",
    "food.yml",
    "history.yml",
    "literature.yml",
    "money.yml",
    "science.yml",
)
"""Files of the PyPI package chatterbot-corpus that stand for what the model could do before."""
CUSTOMERS = 4
WORDINGS = 14
"""Questions that are asked about each fact."""
READY_SECONDS = 120.0
STOP_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Complaint:
    """A question of the new topic, and the answer that the customer would have liked."""

    fact: str
    question: str
    answer: str


def play(folder: Path, example: Path) -> bool:
    """Play the demo in `folder`; True when both turns made the model better, as the summary tells.

    Raises Conflict when the folder is not empty, NotFound when the example or a package is missing.
    """
    began = time.monotonic()
    screen = Screen()
    with screen:
        prepare(folder, example)
        platform = wiring.open_platform(settings.load(folder / "noria.toml"))
        with PeakMemory() as memory, _serving(folder):
            screen.line("[bold]Turn 1: learn the help desk from pages, chats, orders, reviews[/bold]")
            first = _turn(platform, screen)
            url = _wait_until_served(platform)
            screen.line("[bold]Customers ask about something new, and correct the answers[/bold]")
            complaints = new_topic(folder / "data" / "customers.json")
            asked = complain(url, access.admin_key(platform), complaints, screen)
            screen.line(f"      {asked} questions answered and corrected")
            screen.line("[bold]Turn 2: learn from the traffic[/bold]")
            second = _turn(platform, screen)
            _wait_until_served(platform)
            told = _one_answer(platform, complaints[0].question)
            summary = summarise(platform, first, second, screen)
        summary["why"] = lineage.explain(platform, told)
        summary["seconds"] = round(time.monotonic() - began, 1)
        summary["peak_mb"] = memory.peak_mb
    (folder / "summary.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1))
    faults = judge(summary)
    _print(screen, folder, summary, faults)
    return not faults


def prepare(folder: Path, example: Path) -> None:
    """A fresh copy of the example with its database and its general questions."""
    if not (example / "noria.toml").is_file():
        raise NotFound(f"there is no example in '{example}'", "run it in noria's own folder, or name one: --example")
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"'{folder}' is not empty", f"remove it (rm -r {folder}) or name another: --folder")
    shutil.copytree(example, folder, dirs_exist_ok=True)
    with sqlite3.connect(folder / "data" / "orders.db") as connection:
        connection.executescript((folder / "data" / "orders.sql").read_text())
    connection.close()
    corpus = find_spec("chatterbot_corpus")
    if corpus is None or not corpus.submodule_search_locations:
        raise NotFound("the package chatterbot-corpus is not installed", "pip install 'noria[demo]'")
    general = folder / "data" / "general"
    general.mkdir()
    for name in CORPUS:
        shutil.copy(Path(corpus.submodule_search_locations[0]) / "data" / "english" / name, general / name)


def new_topic(file: Path) -> list[Complaint]:
    """The questions of the new topic, one wording of each fact after the other."""
    facts = json.loads(file.read_text())
    return [
        Complaint(fact["fact"], wording, fact["answer"])
        for wordings in zip(*(fact["wordings"][:WORDINGS] for fact in facts), strict=True)
        for fact, wording in zip(facts, wordings, strict=True)
    ]


def complain(url: str, key: str, complaints: Sequence[Complaint], screen: Screen) -> int:
    """Ask every question through the official client and answer the answer with a correction."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=3)

    def one(complaint: Complaint) -> None:
        answer = client.chat.completions.with_raw_response.create(
            model=TASK, messages=[{"role": "user", "content": complaint.question}], user=f"customer-{complaint.fact}"
        )
        body = {
            "interaction": answer.headers["x-noria-interaction"],
            "metric": "thumbs",
            "value": 0,
            "correction": complaint.answer,
        }
        client.post("/feedback", body=body, cast_to=dict[str, Any])

    with client, ThreadPoolExecutor(CUSTOMERS) as pool:
        for done, _ in enumerate(pool.map(one, complaints), 1):
            screen.update("customers", done, len(complaints))
    return len(complaints)


def summarise(platform: Platform, first: cycle.Turn, second: cycle.Turn, screen: Screen) -> dict[str, Any]:
    """Scores of the base, turn 1 and turn 2 on the sealed rows of old and new topics."""
    name, task = platform.settings.task(TASK)
    one, two = views.report_of(platform, first), views.report_of(platform, second)
    if one is None or two is None:
        raise Unavailable("a turn ended without a report", "look: noria status")
    new_rows = [row for row in two.rows if row.slice == "traffic"]
    dataset = platform.lake.path(second.artifact("dataset").ref)
    sealed = [row for row in sealed_rows(dataset) if row.slice == "traffic"]
    log = platform.settings.state / "logs" / "evaluation.log"
    base = one.champion
    with Examiner(platform, task, [], log, recorded(platform, name)) as examiner:
        answers = examiner.answers(base, sealed, screen, "the base on the new topic")
    metric = task.gate.metric
    pairs = [Answered(answer, row.target) for answer, row in zip(answers, sealed, strict=True)]
    scores = dict(zip([row.id for row in sealed], find(metric).each(pairs), strict=True))
    old = [row.id for row in two.rows if row.slice == "task"]
    of_base = {row.id: row.before[metric] for row in one.rows}
    return {
        "metric": metric,
        "turns": [views.result(platform, turn) for turn in (first, second)],
        "new_topic": _three(two, metric, [scores[row.id] for row in new_rows], "traffic"),
        "old_topics": _three(two, metric, [of_base[row] for row in old if row in of_base], "task"),
        "margin": task.gate.margin,
    }


def _three(two: Report, metric: str, base: Sequence[float], group: str) -> dict[str, Any]:
    rows = [row for row in two.rows if row.slice == group]
    clusters = [row.conversation for row in rows]
    before, after = [row.before[metric] for row in rows], [row.after[metric] for row in rows]
    against: Interval = of_scores(metric, before, after, clusters)
    told: dict[str, Any] = {
        "base": round(sum(base) / max(1, len(base)), 4),
        "turn1": round(against.before, 4),
        "turn2": round(against.after, 4),
        "gain": against.gain,
        "low": against.low,
        "high": against.high,
        "rows": len(rows),
    }
    if len(base) == len(rows):
        over_base = of_scores(metric, base, before, clusters)
        told["turn1_over_base"] = {"gain": over_base.gain, "low": over_base.low, "high": over_base.high}
    return told


def judge(summary: dict[str, Any]) -> list[str]:
    """What the demo claims and did not reach; empty when the wheel has turned."""
    faults = []
    for number, turn in enumerate(summary["turns"], 1):
        if turn["verdict"] != "promote":
            faults.append(f"turn {number} was not promoted: {turn['because']}")
        elif turn["metric"]["low"] <= 0:
            faults.append(f"turn {number} is not certainly better than what served before")
    if summary["new_topic"]["low"] <= 0:
        faults.append("turn 2 is not certainly better than turn 1 on the new topic")
    if summary["old_topics"]["low"] <= -summary["margin"]:
        faults.append("turn 2 may have lost more than the margin on the old topics")
    return faults


def _turn(platform: Platform, screen: Screen) -> cycle.Turn:
    turn = cycle.turn(platform, TASK, screen, started=screen.started, finished=screen.finished)
    if turn.decision is not None:
        screen.line(f"      [bold]{turn.decision.verdict}[/bold]: {turn.decision.because}")
    return turn


@contextmanager
def _serving(folder: Path) -> Iterator[None]:
    argv = [sys.executable, "-m", "noria", "up", "--project", str(folder), "--parent", str(os.getpid())]
    up = spawn(argv, log=folder / ".noria" / "logs" / "up.log", env=settings.child_environment())
    try:
        yield
    finally:
        stop(up, STOP_SECONDS)


def _wait_until_served(platform: Platform) -> str:
    """URL of the data plane, once it serves the task's champion."""
    live = platform.deployments.current(TASK)
    wanted = str(live.champion.ref) if live and live.champion else None
    state = platform.settings.state
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if (state / "up.json").is_file() and (state / "snapshot.json").is_file():
            routes = json.loads((state / "snapshot.json").read_text())["routes"]
            if TASK in routes and wanted in (None, routes[TASK]["arms"][0]["served_by"]):
                # The gateway looks for a new snapshot several times a second.
                time.sleep(1.0)
                return str(json.loads((state / "up.json").read_text())["data"])
        time.sleep(0.2)
    raise Unavailable(
        f"'{wanted}' was not served within {READY_SECONDS:.0f} s", f"look into {state / 'logs' / 'up.log'}"
    )


def _one_answer(platform: Platform, question: str) -> str:
    return talk.ask(platform, TASK, question)["id"]


def _print(screen: Screen, folder: Path, summary: dict[str, Any], faults: list[str]) -> None:
    from rich.console import Console

    out = Console(highlight=False)
    rows = [
        [
            label, str(each["rows"]), f"{each['base']:.3f}", f"{each['turn1']:.3f}", f"{each['turn2']:.3f}",
            f"{each['gain']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]",
        ]
        for label, each in (("new topic", summary["new_topic"]), ("old topics", summary["old_topics"]))
    ]  # fmt: skip
    out.print()
    title = f"{summary['metric']} on sealed rows"
    out.print(table_of(["", "rows", "base", "turn 1", "turn 2", "turn 2 over turn 1 (95 %)"], rows, title))
    for number, turn in enumerate(summary["turns"], 1):
        out.print(f"turn {number}: {turn['verdict']}: {turn['because']}", soft_wrap=True)
    stages = [
        [first["stage"], f"{first['seconds']:.1f} s", f"{second['seconds']:.1f} s"]
        for first, second in zip(summary["turns"][0]["stages"], summary["turns"][1]["stages"], strict=True)
    ]
    out.print()
    out.print(table_of(["stage", "turn 1", "turn 2"], stages))
    why = summary["why"]
    out.print(f"\nnoria why {why['answer']['id']}", soft_wrap=True)
    out.print(f"  {why['answer']['question']} -> {why['answer']['text']}", markup=False, soft_wrap=True)
    for row in why["rows"][:3]:
        out.print(f"  learned from {row['origin']}: {row['text']}", markup=False, soft_wrap=True)
    _where(out, folder, summary)
    took = f"{summary['seconds']:.0f} s, at most {summary['peak_mb']:.0f} MB"
    verdict = "the wheel turned" if not faults else "the wheel did not turn: " + "; ".join(faults)
    out.print(f"\n{verdict} ({took})", style="bold green" if not faults else "bold red", soft_wrap=True)


def _where(out: Any, folder: Path, summary: dict[str, Any]) -> None:
    made = {stage["stage"]: stage["output"] for stage in summary["turns"][1]["stages"]}
    lake = folder / "lake"
    out.print("\nlook at")
    for stage, file in (("adapter", "loss.png"), ("report", "report.png")):
        kind, _, rest = made[stage].partition(":")
        name, _, digest = rest.partition("@")
        out.print(f"  {lake / kind / name / digest / file}", soft_wrap=True)
    out.print(f"  {folder / 'summary.json'}", soft_wrap=True)
    out.print(f"  cd {folder} && noria up, then in another terminal: noria chat 'Where does the repair van stop?'")
    out.print(f"  cd {folder} && mlflow ui --backend-store-uri sqlite:///mlflow.db", soft_wrap=True)
