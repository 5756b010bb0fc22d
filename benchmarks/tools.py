"""How well models use tools: the questions of examples/tools, by kind, with Wilson's intervals.

    python benchmarks/tools.py                 # the default model, and two controls
    python benchmarks/tools.py --most 3 --out FILE

The controls are scripted: one makes exactly the calls that are wanted and answers from their results (what the
scoring can reach), one always says that it does not know (what it gives for nothing). What was asked is remembered in
the work folder: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.apps import tooling
from noria.apps.commands.options import opened
from noria.apps.screen import Screen
from noria.tools.questions import Question, Scored, measure, rates, read_questions

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "tools"
QUERIES = {
    "SMILES of Ethanedioic": "SELECT name, smiles FROM compounds WHERE name IN ('oxalic acid', 'calcium carbonate')",
    "benzene": "SELECT smiles FROM compounds WHERE name = 'benzene'",
    "caffeine": "SELECT formula FROM compounds WHERE name = 'caffeine'",
    "imidacloprid": "SELECT label AS toxic FROM apistox WHERE name = 'imidacloprid'",
    "largest": "SELECT max(total_amount) AS largest FROM taxi",
    "cash": "SELECT count(*) AS trips FROM taxi WHERE payment_type = 2",
    "4 passengers": "SELECT count(*) AS trips FROM taxi WHERE passenger_count = 4",
}


class Upper:
    """Makes the wanted calls one by one, then answers with what they gave, or with what the question itself says."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._left = [self._call(each.name, each.arguments) for each in question.calls]

    def __call__(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._left:
            return said(self._left.pop(0))
        asked = self._question
        results = [each["content"] for each in body["messages"][1:] if each["content"].startswith("Result of ")]
        words = "\n".join([*results, *([] if results else [asked.question, "yes"])])
        return said({"answer": "I do not know." if asked.kind == "absent" else words})

    def _call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if name == "query_table":
            arguments = {"sql": next(sql for key, sql in QUERIES.items() if key in self._question.question)}
        return {"name": name, "arguments": dict(arguments)}


def said(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": json.dumps(value)}, "finish_reason": "stop"}]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1000, help="questions to ask")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no question after so many")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--work", type=Path, default=Path("tools-work"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "tools.json")
    options = parser.parse_args()
    shutil.copytree(EXAMPLE, options.work, dirs_exist_ok=True)
    platform = opened(options.work)
    questions = read_questions(options.work / "questions.jsonl")[: options.most]
    settings = platform.settings.tasks["assistant"]
    found: dict[str, list[Scored]] = {"upper": [], "silent": []}
    until = time.monotonic() + 60 * options.minutes
    with Screen() as screen, tooling.toolbox(platform, settings.tools, "benchmark") as box:
        for each in questions:
            for name, ask in (("upper", Upper(each)), ("silent", lambda body: said({"answer": "I do not know."}))):
                found[name] += [s for s, _ in measure(ask, box, [each], settings.calling, "schema", screen)]
        model = platform.settings.engines[options.engine].model or options.engine
        found[model] = known = remembered(options.work / f"{options.engine}.jsonl")
        there = {each.id for each in known}
        with (
            tooling.started(platform, options.engine) as ask,
            (options.work / f"{options.engine}.jsonl").open("a") as log,
        ):
            form = tooling.form_of(platform, options.engine, settings.calling)
            for each in questions:
                if each.id in there or time.monotonic() > until:
                    continue
                scored = measure(ask, box, [each], settings.calling, form, screen)[0][0]
                known.append(scored)
                log.write(scored.model_dump_json() + "\n")
                log.flush()
    told = {name: rates(rows) for name, rows in found.items() if rows}
    rows = {name: [row.model_dump(mode="json") for row in each] for name, each in found.items() if name == model}
    options.out.write_text(
        json.dumps({"form": form, "questions": len(questions), "rates": told, "rows": rows}, indent=1)
    )
    for name, each in told.items():
        print(name)
        for row in tooling.rate_rows(each):
            print("  " + "  ".join(f"{cell:<26}" for cell in row))


def remembered(file: Path) -> list[Scored]:
    return [Scored.model_validate_json(line) for line in file.read_text().splitlines()] if file.is_file() else []


if __name__ == "__main__":
    main()
