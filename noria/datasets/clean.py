"""The stage `documents`: what the sources gave, cleaned step by step. Spark code, on whatever engine.

Documents never come to the driver, only counts and repeated lines do. The step `semantic` is the exception: it asks an
engine.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria.datasets import boilerplate, booklet, language, parts, schema, semantic, steps
from noria.datasets.dedupe import near, without
from noria.datasets.rows import write_json
from noria.datasets.texts import Opened
from noria.errors import Invalid
from noria.retrieval import vectors_by
from noria.settings import (
    BoilerplateStep,
    CleanStep,
    LanguageStep,
    MissingStep,
    SemanticStep,
    Settings,
    TaskSettings,
    options_of,
)
from noria.stage import Look, Work

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def params(look: Look) -> JsonValue:
    """The steps with their options, the schema, and the columns that become question and answer."""
    columns: dict[str, JsonValue] = {
        source: list(columns) for source, columns in _columns(look.platform.settings, look.task).items()
    }
    clean = [step.model_dump(mode="json") for step in look.task.clean]
    told: dict[str, JsonValue] = {
        "clean": [*clean],
        "schema": schema.DOCUMENTS.metadata[schema.KEY].decode(),
        "columns": columns,
    }
    meaning = [step.engine for step in look.task.clean if isinstance(step, SemanticStep)]
    return {**told, "models": [_model(look, name) for name in meaning]} if meaning else told


def work(work: Work) -> Mapping[str, JsonValue]:
    """Write `documents.parquet`, with the columns of the input, and `steps.json`; returns rows and steps.

    The table is one file, or a folder of files where it is large. On a cluster the lake must lie where its workers
    reach it. Raises Invalid when nothing is left.
    """
    for step in work.task.clean:
        if isinstance(step, LanguageStep):
            language.check(step.keep, work.platform.settings.place("tasks", work.name, "clean"))
    scratch = work.out / "spark"
    scratch.mkdir()
    with work.platform.spark() as spark:
        cleaning = _Cleaning(work, spark, scratch)
        rows = cleaning.run()
    shutil.rmtree(scratch)
    log: dict[str, JsonValue] = {"steps": [*cleaning.told], "warnings": [*cleaning.warnings]}
    write_json(log, work.out / "steps.json")
    work.progress.update("documents", 1, 1, "; ".join(cleaning.warnings))
    return {"rows": rows, **log}


ROW_GROUP = 1 << 10
"""Rows of a row group of what is kept on the way."""


@dataclass(slots=True)
class _Cleaning:
    """Documents on their way through the steps: how many each source has by now, and what the steps did."""

    work: Work
    spark: SparkSession
    scratch: Path
    had: Counter[str] = field(default_factory=Counter)
    told: list[dict[str, JsonValue]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self) -> int:
        """Do all steps and write the table; returns its number of rows."""
        source = self.work.folder("sources") / "documents.parquet"
        for file in schema.files_of(source):
            schema.check(pq.read_schema(file), schema.DOCUMENTS, f"'{file.name}' of the sources")
        documents = self.spark.read.parquet(str(source))
        size = documents.selectExpr("source", "octet_length(text) + octet_length(fields) as size")
        self.had, bytes_ = _counts(size)
        buckets = parts.parts_of(self.had.total(), bytes_)
        for number, segment in enumerate(steps.segments(self.work.task.clean)):
            folder = self.scratch / f"cleaned-{number}"
            left = self._pass(documents, segment, buckets, folder)
            left, losers = self._compared(left, segment, number)
            documents = left.select(*schema.DOCUMENTS.names)
        self.had, bytes_ = _counts(left)
        wanted = min(buckets, parts.parts_of(self.had.total(), bytes_))
        return parts.write(self.spark, folder, losers, (buckets, wanted), self.work.out / "documents.parquet")

    def _pass(self, documents: DataFrame, segment: steps.Segment, buckets: int, folder: Path) -> DataFrame:
        """Do the steps that go row by row, all at once; what they leave lies in `folder`."""
        opened: list[Opened] = []
        notes: list[dict[str, JsonValue]] = []
        for step in segment.rows:
            made, note = self._opened(step, documents, opened)
            opened.append(made)
            notes.append(note)
        self._tell(", ".join(step.step for step in segment.rows))
        exact = any(step.step == "exact" for step in segment.whole)
        made_of = steps.cleaned(documents, opened, buckets, exact).write.mode("overwrite")
        # Sail holds a row group of every bucket that it writes. The option is Sail's; Spark does without it.
        made_of = made_of.option("max_row_group_size", ROW_GROUP)
        (made_of.partitionBy("bucket") if buckets > 1 else made_of).parquet(str(folder))
        table = self.spark.read.parquet(str(folder))
        counted = table.where("dropped is not null").groupBy("source", "dropped").agg({"*": "count"})
        gone: dict[int, Counter[str]] = {}
        for row in counted.toDF("source", "dropped", "n").collect():
            gone.setdefault(row["dropped"], Counter())[row["source"]] = row["n"]
        for number, (step, note) in enumerate(zip(segment.rows, notes, strict=True)):
            self._note(step, self.had - gone.get(number, Counter()), note)
        return table.where("dropped is null")

    def _compared(self, left: DataFrame, segment: steps.Segment, number: int) -> tuple[DataFrame, list[Path]]:
        """Do the steps that compare documents; returns what is left, and where the ids of the others lie."""
        losers: list[Path] = []
        for place, step in enumerate(segment.whole):
            self._tell(step.step)
            folder, scratch = (self.scratch / f"{name}-{number}-{place}" for name in ("losers", step.step))
            note: dict[str, JsonValue] = {}
            if isinstance(step, SemanticStep):
                found = self._alike(left, step, scratch)
                semantic.write(found.ids, folder)
                note["left_alone"] = found.alone
            else:
                columns = _columns(self.work.platform.settings, self.work.task)
                ids = steps.exact(left) if step.step == "exact" else near(self.spark, left, columns, scratch)
                ids.write.mode("overwrite").parquet(str(folder))
            # An engine may write no file, nor a folder, where there is no row.
            if any(folder.glob("*.parquet")):
                losers.append(folder)
                left = without(left, self.spark.read.parquet(str(folder)))
            self._note(step, _counts(left)[0], note)
        return left, losers

    def _alike(self, left: DataFrame, step: SemanticStep, scratch: Path) -> semantic.Found:
        scratch.mkdir()

        def told(done: int, count: int) -> None:
            self._tell(f"semantic: {done:,} of {count:,}")

        with vectors_by(self.work.platform, step.engine) as embed:
            return semantic.alike(left, embed, step.similarity, step.chars, scratch, told)

    def _opened(
        self, step: CleanStep, documents: DataFrame, before: Sequence[Opened]
    ) -> tuple[Opened, dict[str, JsonValue]]:
        """The function of a step, and what else is to be told of it."""
        options = options_of(step)
        if isinstance(step, BoilerplateStep):
            self._tell("repeated lines")
            lines = boilerplate.repeated(documents, before, self.had, step.share, step.documents)
            return boilerplate.boilerplate(lines), {"lines": {source: len(mine) for source, mine in lines.items()}}
        if isinstance(step, MissingStep) and not step.columns:
            options["columns"] = _columns(self.work.platform.settings, self.work.task)
        if step.step == "booklet-regex" and (damage := booklet.damage(documents, before, self.had.total())):
            self.warnings.append(damage)
            return steps.ROWS[step.step](**options), {"warning": damage}
        return steps.ROWS[step.step](**options), {}

    def _note(self, step: CleanStep, left: Counter[str], more: Mapping[str, JsonValue]) -> None:
        """Tell what a step took in and gave out, of every source; raise Invalid when it gave nothing."""
        sources: dict[str, JsonValue] = {name: {"in": n, "out": left[name]} for name, n in sorted(self.had.items())}
        self.told.append({"step": step.step, "in": self.had.total(), "out": left.total(), "sources": sources, **more})
        if not left:
            raise Invalid(
                f"no document is left after cleaning: step '{step.step}' dropped the last {self.had.total()}",
                "look at the sources and at clean = […] of the task",
                where=self.work.platform.settings.place("tasks", self.work.name, "clean"),
            )
        self.had = left

    def _tell(self, what: str) -> None:
        self.work.progress.update("documents", len(self.told), len(self.work.task.clean) + 1, what)


def _model(look: Look, name: str) -> JsonValue:
    engine = look.platform.settings.engines[name]
    return [str(each) for each in look.platform.engines[engine.kind].base(engine)]


def _counts(documents: DataFrame) -> tuple[Counter[str], int]:
    """Documents by source, and the sum of their sizes in bytes."""
    counted = documents.groupBy("source").agg({"*": "count", "size": "sum"}).toDF("source", "n", "size").collect()
    return Counter({row["source"]: row["n"] for row in counted}), sum(row["size"] for row in counted)


def _columns(settings: Settings, task: TaskSettings) -> dict[str, tuple[str, ...]]:
    mapped = [source for source in settings.sources if source.map and source.name in task.source_names]
    return {source.name: (source.map["question"], source.map["answer"]) for source in mapped}
