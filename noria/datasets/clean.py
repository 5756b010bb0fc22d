"""The stage `documents`: what the sources gave, cleaned and without duplicates. Spark code, on whatever engine."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from noria.datasets.dedupe import exact, near, without
from noria.datasets.normalise import boilerplate_of, cleaner, repeated_lines
from noria.datasets.rows import DOCUMENT_COLUMNS, write_json, write_table
from noria.errors import Invalid
from noria.settings import Settings
from noria.stage import Look, Work

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_SCHEMA = ", ".join(f"`{name}` {'long' if name == 'offset' else 'string'}" for name in DOCUMENT_COLUMNS)


def params(look: Look) -> JsonValue:
    """The columns that become question and answer: where they are known, near duplicates must agree in both."""
    return {source: list(columns) for source, columns in _columns(look.platform.settings).items()}


def work(work: Work) -> Mapping[str, JsonValue]:
    """Write `documents.parquet`, with the columns of the input, and `steps.json`; returns rows and steps.

    On a cluster the lake must lie where its workers reach it. Raises Invalid when nothing is left.
    """
    scratch = work.out / "spark"
    columns = _columns(work.platform.settings)
    with work.platform.spark() as spark:
        raw = spark.read.parquet(str(work.folder("sources") / "documents.parquet"))
        had = Counter(
            {row["source"]: row["n"] for row in raw.groupBy("source").agg({"*": "count"}).toDF("source", "n").collect()}
        )
        work.progress.update("documents", 1, 4, "clean")
        cleaned = _kept(spark, _clean(raw, had), scratch / "clean")
        work.progress.update("documents", 2, 4, "exact duplicates")
        unique = _kept(spark, exact(cleaned), scratch / "exact")
        work.progress.update("documents", 3, 4, "near duplicates")
        losers = near(spark, unique, columns, scratch)
        table = without(unique, losers).select(*DOCUMENT_COLUMNS).toArrow()
        counts = [had.total(), cleaned.count(), unique.count(), table.num_rows]
    shutil.rmtree(scratch)
    if not table.num_rows:
        raise Invalid(
            "no document is left after cleaning: all are empty or shorter than two letters",
            "look at the sources: noria data show",
        )
    write_table(table, "id", work.out / "documents.parquet")
    names = ("clean", "exact duplicates", "near duplicates")
    steps: list[JsonValue] = [
        {"step": name, "in": before, "out": after}
        for name, before, after in zip(names, counts, counts[1:], strict=False)
    ]
    write_json({"steps": steps}, work.out / "steps.json")
    work.progress.update("documents", 4, 4)
    return {"rows": table.num_rows, "steps": steps}


def _clean(raw: DataFrame, had: Counter[str]) -> DataFrame:
    """Clean texts and fields, leave out repeated lines and what says nothing."""
    from pyspark.sql import functions as F

    lines = raw.mapInArrow(repeated_lines, "source string, line string").groupBy("source", "line")
    often = lines.agg(F.count("*").alias("n")).where("n > 1").collect()
    boilerplate = boilerplate_of([(row["source"], row["line"], row["n"]) for row in often], had)
    cleaned = raw.select(*DOCUMENT_COLUMNS).mapInArrow(cleaner(boilerplate), f"{_SCHEMA}, sha string, speaks boolean")
    return cleaned.where("speaks")


def _kept(spark: SparkSession, rows: DataFrame, folder: Path) -> DataFrame:
    """The rows, computed once: Spark would compute them anew for every use."""
    rows.write.mode("overwrite").parquet(str(folder))
    return spark.read.parquet(str(folder))


def _columns(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {source.name: (source.map["question"], source.map["answer"]) for source in settings.sources if source.map}
