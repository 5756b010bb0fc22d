"""Judges of noria.toml run inside MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from noria.apps import judging
from noria.backends import mlflow_judges
from noria.backends.mlflow_judges import Given, MlflowJudge, MlflowRow, OwnScorer
from noria.errors import Invalid
from noria.evaluation.judges import rows as reading
from noria.evaluation.judges.bench import Bench
from noria.evaluation.judges.judge import Judge
from noria.evaluation.judges.rows import JudgeRow
from noria.ports import Engine, Platform, Progress

MLFLOW = "_mlflow"
"""What the name of MLflow's own judge ends with, beside noria's of the same criteria."""


def evaluate(
    platform: Platform,
    names: Sequence[str],
    file: Path,
    answers: str | None,
    experiment: str | None,
    progress: Progress,
) -> dict[str, Any]:
    """Judge a file's rows in one run of MLflow; the numbers are uncalibrated and say so by their tag.

    A judge runs as `noria judge run` would run it; one by score runs by `make_judge` too. Raises as
    `mlflow_judges.evaluate`, and Invalid for a pairwise judge.
    """
    judges = [judging.judge_named(platform, name) for name in names]
    for judge in judges:
        if judge.settings.method == "pairwise":
            raise Invalid(f"judge '{judge.name}' compares pairs, MLflow scores answers", "run it with: noria judge run")
    rows = reading.read_rows(file)
    if answers is not None:
        rows = judging.answered(platform, answers, rows, progress)
    for judge in judges:
        reading.check(rows, judge.settings.wants, False, file.name)
    with ExitStack() as stack:
        engines = {
            name: judging.once(partial(judging.engine, platform, name, stack))
            for name in {judge.settings.engine for judge in judges}
        }
        own, theirs = [], []
        for judge in judges:
            start = engines[judge.settings.engine]
            bench = stack.enter_context(judging.bench(platform, judge, start))
            bench.prepare()
            own.append(_scorer(bench, rows))
            if judge.settings.method == "score":
                theirs.append(_mlflow(judge, start()))
        settings = platform.settings
        where = experiment or settings.project.name
        told = mlflow_judges.evaluate(
            settings.runtime.tracking,
            settings.root,
            where,
            f"{' '.join(names)} on {file.name}",
            [_row(row) for row in rows],
            own,
            theirs,
        )
    return {
        "run": told.run, "experiment": where, "tracking": told.tracking, "metrics": told.metrics,
        "scored": told.scored, "rows": len(rows),
    }  # fmt: skip


def _row(row: JudgeRow) -> MlflowRow:
    return MlflowRow(row.id, row.question, row.answer, row.context, row.target)


def _scorer(bench: Bench, rows: Sequence[JudgeRow]) -> OwnScorer:
    by_id = {row.id: row for row in rows}

    def score(identity: str) -> Given:
        judged = bench.one(by_id[identity])
        extra = {
            "calibration": "uncalibrated", "judge": bench.judge.digest, "seconds": str(judged.seconds),
            "tokens": str(judged.prompt_tokens + judged.completion_tokens), "cost": str(judged.cost),
        }  # fmt: skip
        if judged.mass is not None:
            extra["mass"] = f"{judged.mass:.3f}"
        return Given(judged.score, judged.void or judged.reason, extra)

    return OwnScorer(bench.judge.name, str(bench.judge.model), score)


def _mlflow(judge: Judge, engine: Engine) -> MlflowJudge:
    """The same judge in MLflow's form: criteria, rubric and graded examples as instructions."""
    parts = ["Score the answer {{ outputs }} to {{ inputs }} by these criteria and nothing else:", judge.criteria]
    if "target" in judge.settings.wants:
        parts.append("What is wanted stands in {{ expectations }}.")
    parts += [f"{score}: {text}" for score, text in sorted(judge.rubric.items(), reverse=True)]
    parts += [
        f"Example: input {each.input!r}, output {each.output!r}: score {each.score:g}, because {each.justification}"
        for each in judge.examples
    ]
    safe = [parts[0], *(part.replace("{{", "{ {") if "{{ expectations" not in part else part for part in parts[1:])]
    endpoint, most = engine.endpoint, judge.settings.max_tokens
    return MlflowJudge(f"{judge.name}{MLFLOW}", "\n".join(safe), judge.settings.scores, endpoint, most)
