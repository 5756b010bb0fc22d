"""Documents of a task's context in the feature store, and the nearest of them to a question."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa

from noria.errors import Invalid, NotFound
from noria.features.views import project_of, table_of
from noria.ports import FeatureView, Hit, Platform
from noria.retrieval import Retriever, embedding
from noria.settings import ContextSettings
from noria.types import Ref, digest_of

NAME, ENTITY = "llm_documents", "document_id"
_CYCLES = 1000


def view_of(platform: Platform, name: str, context: ContextSettings) -> FeatureView:
    """The view of documents with the vectors of the context's engine: another encoder is another version."""
    settings = platform.settings.engines[str(context.engine)]
    base, quantization = platform.engines[settings.kind].base(settings)
    version = digest_of(["documents", context.source, str(base), quantization])
    return FeatureView(
        project=project_of(platform, name, version),
        name=NAME,
        entity=ENTITY,
        fields={"text": "text", "embedding": "floats"},
        table=table_of(platform, name, f"documents-{version}"),
        tags={"task": name, "version": version, "encoder": str(base)},
    )


def publish(platform: Platform, name: str) -> int:
    """Bring the documents of the newest data set online with their vectors; returns how many, 0 without vectors."""
    context = platform.settings.tasks[name].context
    if context is None or not context.vectors:
        return 0
    ref, at = newest(platform, name)
    rows = list(platform.indexes.rows(platform.lake.path(ref) / "index"))
    if not rows:
        return 0
    view = view_of(platform, name, context)
    table = pa.table(
        {
            ENTITY: [hit.document for hit, _ in rows],
            "text": [hit.text for hit, _ in rows],
            "embedding": pa.array([vector for _, vector in rows], pa.list_(pa.float32())),
            "event_timestamp": pa.array([at] * len(rows), pa.timestamp("us", "UTC")),
            "created": pa.array([at] * len(rows), pa.timestamp("us", "UTC")),
        }
    )
    platform.features.add(view, table, f"part-{ref.digest}")
    platform.features.push(view, table)
    return len(rows)


def retrieve(platform: Platform, name: str, question: str, k: int) -> list[Hit]:
    """The documents that stand beside this question, nearest first, as training and serving find them.

    Raises Invalid for a task without context, NotFound where no data set was made.
    """
    task = platform.settings.tasks[name]
    if task.context is None:
        where = platform.settings.place("tasks", name)
        raise Invalid(f"task '{name}' has no context", 'add context = { source = "…", k = 3 }', where=where)
    index = platform.indexes.open(folder_of(platform, name))
    with embedding(platform, task.context) as embed:
        return Retriever(index, task.context, task.context_chars, embed).retrieve(question, k)


def folder_of(platform: Platform, name: str) -> Path:
    """The index of the newest data set."""
    return platform.lake.path(newest(platform, name)[0]) / "index"


def newest(platform: Platform, name: str) -> tuple[Ref, datetime]:
    """The newest data set of a task, and when it was made; raises NotFound."""
    for _, runs in platform.runs.cycles(name, _CYCLES):
        for run in reversed(runs):
            if run.stage == "dataset" and platform.lake.has(run.output):
                return run.output, run.at
    raise NotFound(f"task '{name}' has no data set yet", "noria run dataset")
