"""The stage `dataset`: examples from documents and traffic, scrubbed, with their context, split for good."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import __version__, prompts
from noria.datasets import leaks
from noria.datasets.gather import from_documents, from_traffic
from noria.datasets.rows import (
    read_documents,
    read_feedback,
    read_interactions,
    read_sides,
    write_examples,
    write_json,
    write_sides,
)
from noria.datasets.schema import rows_of
from noria.datasets.scrub import Recognise, Scrubber, counted_before, keeps, keeps_document, params_of, rules_of
from noria.datasets.shingles import words
from noria.datasets.split import Sides, split
from noria.errors import Invalid
from noria.settings import SourceSettings
from noria.stage import Look, Work
from noria.types import Artifact, Document, Example, Ref, Run, Split, digest_of

_FIRST_PAGE = 50


def params(look: Look) -> JsonValue:
    """The settings that change the rows: maps, slices and limits of the sources, context, lengths, share of tests."""
    task = look.task
    mapped = [
        source.model_dump(mode="json", include={"name", "map", "slice", "limit"})
        for source in map(look.platform.settings.source, task.sources)
    ]
    wanted = {"context", "test_share", "context_chars", "answer_chars"}
    scrub: JsonValue = params_of(task.scrub, look.platform.settings.state)
    return {"sources": list(mapped), "task": task.model_dump(mode="json", include=wanted), "scrub": scrub}


def observes(look: Look) -> JsonValue:
    """The dataset whose sides this one goes on from, as a ref, or None at the beginning.

    That is the newest one of the task, but where that very one was made from the same inputs by the same settings:
    then it is what that one went on from, so that asking twice gives the same run key.
    """
    for run, artifact in _earlier(look):
        if artifact.meta.get("made_from") == _made_from(look):
            return artifact.meta.get("sides_from")
        return str(run.output)
    return None


def work(work: Work, recogniser: Callable[[], Recognise] | None = None) -> Mapping[str, JsonValue]:
    """Write `train.parquet`, `test.parquet`, `sides.parquet`, `steps.json` and, for a task with context, `index/`.

    Test rows lie in a file of their own, so that training never opens it. Returns counts; `leaks` is what of personal
    data is in the files that were written. `recogniser` opens the model that finds names, where the task asks for
    them. Raises Invalid when there is no example, or none on one of the sides.
    """
    rules = rules_of(work.task.scrub, work.platform.settings.state)
    named = work.task.scrub.names or work.task.scrub.places
    before = counted_before(work.inputs["documents"].meta)
    scrubber = Scrubber(rules, recogniser() if recogniser is not None and named else None, before)
    every = _gather(work, scrubber)
    gathered = [example for example in every if keeps(example)]
    unique = _unique(gathered)
    if not unique:
        raise _nothing(work)
    work.progress.update("dataset", 1, 3, "split")
    sides = split(unique, _previous(work), work.task.test_share)
    _check(sides, work)
    work.progress.update("dataset", 2, 3, "context")
    train, test = _with_context(work, sides, scrubber)
    write_examples(train, work.out / "train.parquet")
    write_examples(test, work.out / "test.parquet")
    write_sides(sides.members, work.out / "sides.parquet")
    rows = len(train) + len(test)
    steps = _steps(work, len(every), len(gathered), len(unique), rows)
    quarantined = pq.read_metadata(work.folder("sources") / "quarantine.parquet").num_rows
    personal: dict[str, JsonValue] = dict(sorted(scrubber.counts.items()))
    leaking: dict[str, JsonValue] = {**leaks.kinds_of(leaks.scan(work.out, rules))}
    measured: dict[str, JsonValue] = {
        "steps": steps, "quarantined": quarantined, "personal_data": personal, "leaks": leaking,
    }  # fmt: skip
    write_json(measured, work.out / "steps.json")
    work.progress.update("dataset", 3, 3)
    return {
        "rows": rows,
        "train": len(train),
        "test": len(test),
        "bridging": sides.bridging,
        "slices": dict(sorted(Counter(example.slice for example in (*train, *test)).items())),
        "origins": dict(sorted(Counter(example.origin for example in (*train, *test)).items())),
        **measured,
        "sides_from": work.observed,
        "made_from": _made_from(Look(work.platform, work.name, work.task, work.inputs)),
    }


def _gather(work: Work, scrubber: Scrubber) -> list[Example]:
    """All examples, those of the sources first, in the order in which the task names them."""
    file = work.folder("documents") / "documents.parquet"
    context = work.task.context.source if work.task.context else None
    found: list[Example] = []
    for source in _mapped(work):
        # The documents of the context are counted when the index is built from them.
        counting = scrubber.aside() if source.name == context else scrubber
        documents = (counting.document(document) for document in read_documents(file, [source.name]))
        found += from_documents(documents, source, work.task)
    said = work.folder("sources")
    interactions = read_interactions(said / "interactions.parquet")
    feedback = read_feedback(said / "feedback.parquet")
    found += from_traffic(interactions, feedback, work.task, scrubber)
    return found


def _mapped(work: Work) -> list[SourceSettings]:
    return [source for source in map(work.platform.settings.source, work.task.sources) if source.map]


def _unique(examples: list[Example]) -> list[Example]:
    """The first of those with the same question and answer; case, white space and punctuation do not count."""
    seen: dict[str, Example] = {}
    for example in examples:
        parts = (*(message.content for message in example.messages), example.target)
        key = digest_of([" ".join(words(part)) for part in parts])
        seen.setdefault(key, example)
    return list(seen.values())


def _with_context(work: Work, sides: Sides, scrubber: Scrubber) -> tuple[list[Example], list[Example]]:
    """Build the index, and put beside each question what it would be served with."""
    context = work.task.context
    if context is None:
        return sides.train, sides.test
    file = work.folder("documents") / "documents.parquet"
    scrubbed: Iterator[Document] = map(scrubber.document, read_documents(file, [context.source]))
    documents = filter(keeps_document, scrubbed)
    folder = work.out / "index"
    work.platform.indexes.build(documents, folder)
    index = work.platform.indexes.open(folder)

    def beside(example: Example) -> Example:
        near = prompts.nearest(index.search, example.messages[-1].content, context.k, work.task.context_chars)
        return example.model_copy(update={"context": near})

    return list(map(beside, sides.train)), list(map(beside, sides.test))


def _check(sides: Sides, work: Work) -> None:
    for side, rows, other in (("training", sides.train, sides.test), ("test", sides.test, sides.train)):
        if not rows:
            raise Invalid(
                f"task '{work.name}' has no {side} row: its {len(other)} examples are alike or belong together",
                "add examples with other questions, in other conversations",
                where=work.platform.settings.place("tasks", work.name, "sources"),
            )


def _nothing(work: Work) -> Invalid:
    names = ", ".join(f"'{name}'" for name in work.task.sources)
    mapped = _mapped(work)
    if mapped:
        fact = f"task '{work.name}' has no examples: no document of {names} has a question and an answer"
        hint = "check the map of the sources"
    else:
        fact = f"task '{work.name}' has no examples: none of its sources has a map ({names})"
        hint = 'add to a source: map = { question = "…", answer = "…" }'
    return Invalid(fact, hint, where=work.platform.settings.place("tasks", work.name, "sources"))


def _steps(work: Work, every: int, gathered: int, unique: int, rows: int) -> list[JsonValue]:
    """What every step took in and gave out, from the cleaning on."""
    before: list[JsonValue] = json.loads((work.folder("documents") / "steps.json").read_text(encoding="utf-8"))["steps"]
    documents = rows_of(work.folder("documents") / "documents.parquet")
    # Interactions that nobody commented teach nothing; counting them would make another dataset of every request.
    said = pq.read_metadata(work.folder("sources") / "feedback.parquet").num_rows
    counts = [
        ("examples of documents and feedback", documents + said, every),
        ("dropped personal data", every, gathered),
        ("duplicate examples", gathered, unique),
        ("bridging examples", unique, rows),
    ]
    return [*before, *({"step": step, "in": took, "out": gave} for step, took, gave in counts)]


def _previous(work: Work) -> dict[str, Split]:
    if work.observed is None:
        return {}
    return read_sides(work.platform.lake.path(Ref.parse(str(work.observed))) / "sides.parquet")


def _made_from(look: Look) -> str:
    inputs: dict[str, JsonValue] = {name: str(artifact.ref) for name, artifact in look.inputs.items()}
    return digest_of({"inputs": inputs, "params": params(look), "code": __version__})


def _earlier(look: Look) -> Iterator[tuple[Run, Artifact]]:
    """Datasets of the task that are still in the lake, newest first, however many cycles ago."""
    limit, seen = _FIRST_PAGE, 0
    while True:
        cycles = look.platform.runs.cycles(look.name, limit)
        for _, runs in cycles[seen:]:
            for run in reversed(runs):
                if run.stage != "dataset" or not look.platform.lake.has(run.output):
                    continue
                artifact = look.platform.runs.find(run.key)
                if artifact is not None:
                    yield run, artifact
        if len(cycles) < limit:
            return
        seen, limit = len(cycles), limit * 10
