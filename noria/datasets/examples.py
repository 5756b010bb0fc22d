"""The stage `dataset`: examples from documents and traffic, scrubbed, checked, split for good, with their context."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow.parquet as pq
from pydantic import JsonValue

from noria import __version__
from noria.datasets import contamination, labelled, leaks, looks, pairs, poisoning, synthetic
from noria.datasets.draft import Draft
from noria.datasets.gather import from_documents, from_traffic
from noria.datasets.rows import (
    read_documents,
    read_feedback,
    read_interactions,
    read_sides,
    write_examples,
    write_json,
    write_sides,
    write_times,
)
from noria.datasets.schema import rows_of
from noria.datasets.scrub import Recognise, Scrubber, keeps, keeps_document, params_of, rules_of
from noria.datasets.shingles import words
from noria.datasets.split import Plan, Side, Sides, on, question_member, split
from noria.errors import Invalid
from noria.retrieval import Retriever, embedding
from noria.settings import SourceSettings
from noria.stage import Look, Work
from noria.types import Artifact, Document, Example, Feedback, Interaction, Ref, Run, digest_of

OWN_SLICES = ("task", "traffic")
"""Slices that are the task itself: by them it is promoted. Others only guard, and their rows are never retired."""

_FIRST_PAGE = 50


def params(look: Look) -> JsonValue:
    """The settings that change the rows: maps, slices and limits of the sources, context, lengths, the split."""
    task = look.task
    mapped = [
        source.model_dump(mode="json", include={"name", "map", "pairs", "slice", "limit"})
        for source in map(look.platform.settings.source, task.sources)
    ]
    wanted = {"context", "test_share", "context_chars", "answer_chars", "feedback", "synthetic", "poisoning"}
    told = task.model_dump(mode="json", include=wanted)
    if task.synthetic is not None:
        engine = look.platform.settings.engines[task.synthetic.engine]
        base, quantization = look.platform.engines[engine.kind].base(engine)
        told["synthetic"]["model"] = [str(base), quantization]
    if task.context is not None and task.context.engine is not None:
        engine = look.platform.settings.engines[task.context.engine]
        told["context"]["model"] = [str(each) for each in look.platform.engines[engine.kind].base(engine)]
    # How often sealed rows may be looked at changes no row by itself.
    told |= labelled.params(task)
    told["split"] = task.split.model_dump(mode="json", exclude={"looks"})
    scrub: JsonValue = params_of(task.scrub, look.platform.settings.state)
    return {"sources": list(mapped), "task": told, "scrub": scrub}


def observes(look: Look) -> JsonValue:
    """The dataset whose sides this one goes on from, the sealed set to show, and the files that are read beside.

    That dataset is the newest one of the task, but where that very one was made from the same inputs by the same
    settings: then it is what that one went on from, so that asking twice gives the same run key.
    """
    seen = _seen(look)
    for run, artifact in _earlier(look):
        before = artifact.meta.get("observed")
        same = isinstance(before, dict) and {**before, "sides": None} == {**seen, "sides": None}
        if isinstance(before, dict) and same and artifact.meta.get("made_from") == _made_from(look):
            return {**seen, "sides": before["sides"]}
        return {**seen, "sides": str(run.output)}
    return {**seen, "sides": None}


@dataclass(frozen=True, slots=True)
class _Counts:
    """Rows after each step."""

    every: int
    gathered: int
    unique: int
    trusted: int
    split: int
    clean: int
    rows: int


def work(work: Work, recogniser: Callable[[], Recognise] | None = None) -> Mapping[str, JsonValue]:
    """Write the tables of a dataset; returns counts.

    `train.parquet` and `test.parquet` lie apart, so that training never opens the test rows. Beside them lie
    `times.parquet` (when training rows were said), `pairs.parquet` (preferences), `sides.parquet`, `suspects.parquet`,
    `steps.json` and, for a task with context, `index/`. Of the counts, `leaks` is what of personal data is in the files
    that were written. `recogniser` opens the model that finds names, where the task asks for them. Raises Invalid when
    there is no example, none on one of the sides, too few fresh sealed rows, or more that look planted than the task
    bears; Denied for a trusted file that is not what was signed.
    """
    scrubber, traffic = _scrubber(work, recogniser), _traffic(work)
    every = _gather(work, scrubber, traffic)
    gathered = [draft for draft in every if keeps(draft.example)]
    unique = _unique(gathered)
    if not unique:
        raise _nothing(work)
    drafts, suspects = _checked(work, unique)
    work.progress.update("dataset", 1, 3, "split")
    observed = _observed(work)
    plan = Plan(_share(work), work.task.split.by, work.task.split.after, int(str(observed["filling"])))
    sides = split(drafts, _previous(work), plan)
    benchmarks = _benchmarks(Look(work.platform, work.name, work.task, {}))
    train, repeated = contamination.cleaned(sides.train, sides.test, benchmarks)
    test = _shown(sides, int(str(observed["shown"])))
    _check(train, test, work, int(str(observed["shown"])))
    work.progress.update("dataset", 2, 3, "context")
    with _beside(work, scrubber, [*test, *train]) as beside:
        sealed, learned = _dressed(on("test", test), beside), _dressed(on("train", train), beside)
        known = {draft.example.id for draft in train}
        preferences = pairs.gathered(*traffic, work.task, sides, scrubber.aside(), known)
        preferred = pairs.write(preferences, beside, work.out / "pairs.parquet")
    write_examples(learned, work.out / "train.parquet")
    write_examples(sealed, work.out / "test.parquet")
    write_times({draft.example.id: draft.at for draft in train if draft.at}, work.out / "times.parquet")
    write_sides(sides.members, work.out / "sides.parquet")
    rows = [*learned, *sealed]
    parted, clean = (len(side) + len(sides.test) for side in (sides.train, train))
    counts = _Counts(len(every), len(gathered), len(unique), len(drafts), parted, clean, len(rows))
    quarantined = pq.read_metadata(work.folder("sources") / "quarantine.parquet").num_rows
    personal: dict[str, JsonValue] = dict(sorted(scrubber.counts.items()))
    measured: dict[str, JsonValue] = {
        "steps": _steps(work, counts), "quarantined": quarantined, "personal_data": personal,
        "leaks": {**leaks.kinds_of(leaks.scan(work.out, scrubber.rules))},
    }  # fmt: skip
    write_json(measured, work.out / "steps.json")
    work.progress.update("dataset", 3, 3)
    return {
        "rows": len(rows),
        "train": len(learned),
        "test": len(sealed),
        "pairs": preferred,
        "bridging": sides.bridging,
        "contaminated": repeated,
        "poisoning": suspects,
        "sealed": _sealed(work, sides, len(sealed)),
        "slices": dict(sorted(Counter(example.slice for example in rows).items())),
        "origins": dict(sorted(Counter(example.origin for example in rows).items())),
        **measured,
        "made_from": _made_from(Look(work.platform, work.name, work.task, work.inputs)),
    }


def _scrubber(work: Work, recogniser: Callable[[], Recognise] | None) -> Scrubber:
    wanted = work.task.scrub
    named = recogniser is not None and (wanted.names or wanted.places)
    recognise = recogniser() if recogniser is not None and named else None
    return Scrubber(rules_of(wanted, work.platform.settings.state), recognise)


def _traffic(work: Work) -> tuple[list[Interaction], list[Feedback]]:
    said = work.folder("sources")
    return read_interactions(said / "interactions.parquet"), read_feedback(said / "feedback.parquet")


def _gather(work: Work, scrubber: Scrubber, traffic: tuple[list[Interaction], list[Feedback]]) -> list[Draft]:
    """All examples, those of the sources first, in the order in which the task names them, what is made up last."""
    context, made_up = work.task.context.source if work.task.context else None, work.task.synthetic
    found: list[Draft] = []
    for source in _mapped(work):
        # The documents of the context are counted when the index is built from them.
        counting = scrubber.aside() if source.name == context else scrubber
        found += from_documents(_documents(work, source.name, counting, source.map.get("user", "")), source, work.task)
    found += from_traffic(*traffic, work.task, scrubber)
    if made_up is not None:
        documents = _documents(work, made_up.source, scrubber.aside())
        asked = synthetic.questions(work, documents, made_up, scrubber)
        most = len(asked) if made_up.max_share == 1.0 else int(made_up.max_share / (1 - made_up.max_share) * len(found))
        found += asked[:most]
    return labelled.labelled(found, work.task, work.platform.settings.place("tasks", work.name, "sources"))


def _documents(work: Work, source: str, scrubber: Scrubber, user: str = "") -> Iterator[Document]:
    """The documents of a source, scrubbed; the column `user` tells people apart and becomes a digest before that."""
    for document in read_documents(work.folder("documents") / "documents.parquet", [source]):
        who = document.fields.get(user, "").strip()
        clean = scrubber.document(document)
        if who:
            clean = clean.model_copy(update={"fields": {**clean.fields, user: digest_of(["user", who])}})
        if keeps_document(clean):
            yield clean


def _mapped(work: Work) -> list[SourceSettings]:
    used = map(work.platform.settings.source, work.task.sources)
    return [source for source in used if source.map or source.pairs]


def _unique(drafts: list[Draft]) -> list[Draft]:
    """The first of those with the same question and answer; case, white space and punctuation do not count."""
    seen: dict[bytes, Draft] = {}
    for draft in drafts:
        parts = (*(message.content for message in draft.example.messages), draft.example.target)
        key = "\0".join(" ".join(words(part)) for part in parts)
        seen.setdefault(hashlib.sha256(key.encode()).digest(), draft)
    return list(seen.values())


def _checked(work: Work, drafts: list[Draft]) -> tuple[list[Draft], dict[str, JsonValue]]:
    """Look for planted rows and do with them what the task says; the suspects are written."""
    wanted = work.task.poisoning
    where = work.platform.settings.place("tasks", work.name, "poisoning")
    checked = poisoning.check(drafts, wanted, poisoning.trusted_rows(wanted, work.platform.settings, where))
    kept = poisoning.act(drafts, checked, wanted, where)
    poisoning.write(checked, drafts, work.out / "suspects.parquet")
    return kept, checked.meta()


def _share(work: Work) -> float:
    return work.task.split.test_share or work.task.test_share


def _shown(sides: Sides, shown: int) -> list[Draft]:
    """The test rows of the set that is shown, and those that only guard."""
    return [
        draft
        for draft in sides.test
        if draft.example.slice not in OWN_SLICES or sides.members[question_member(draft)].sealed == shown
    ]


def _sealed(work: Work, sides: Sides, rows: int) -> dict[str, JsonValue]:
    """Where the sealed rows stand, for the record and `noria status`."""
    state = looks.sealed(work.platform, work.name)
    aside = sum(sides.members[question_member(draft)].sealed > state.shown for draft in sides.test)
    return {
        "set": int(str(_observed(work)["shown"])),
        "rows": rows,
        "aside": aside,
        "looks": state.looks,
        "limit": state.limit,
    }


@contextmanager
def _beside(work: Work, scrubber: Scrubber, asked: Sequence[Draft]) -> Iterator[Callable[[str], str | None]]:
    """Build the index; a function from a question to what it would be served with, which is made ready for some."""
    context = work.task.context
    if context is None:
        yield lambda question: None
        return
    folder = work.out / "index"
    with embedding(work.platform, context) as embed:
        work.platform.indexes.build(_documents(work, context.source, scrubber), folder, embed)
        index = work.platform.indexes.open(folder)
        found = Retriever(index, context, work.task.context_chars, embed)
        found.ready([draft.example.messages[-1].content for draft in asked])
        yield found.context


def _dressed(examples: list[Example], beside: Callable[[str], str | None]) -> list[Example]:
    contexts = [(example, beside(example.messages[-1].content)) for example in examples]
    return [
        example if context is None else example.model_copy(update={"context": context}) for example, context in contexts
    ]


def _check(train: Sequence[Draft], test: Sequence[Draft], work: Work, shown: int) -> None:
    for side, rows, other in (("training", train, test), ("test", test, train)):
        if not rows:
            raise Invalid(
                f"task '{work.name}' has no {side} row: its {len(other)} examples are alike or belong together",
                "add examples with other questions, in other conversations",
                where=work.platform.settings.place("tasks", work.name, "sources"),
            )
    labelled.check(train, test, work.name, work.task, work.platform.settings.place("tasks", work.name, "sources"))
    fresh = sum(draft.example.slice in OWN_SLICES for draft in test)
    if shown > 1 and fresh < work.task.gate.min_rows:
        raise Invalid(
            f"the sealed rows of '{work.name}' are worn out: {work.task.split.looks} reports have looked at them, and "
            f"only {fresh} of {work.task.gate.min_rows} fresh ones are there",
            "draw fresh test rows from new conversations, or raise looks in "
            f"{work.platform.settings.place('tasks', work.name, 'split')} and trust the verdicts less",
            where=work.platform.settings.place("tasks", work.name, "split"),
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


def _steps(work: Work, counts: _Counts) -> list[JsonValue]:
    """What every step took in and gave out, from the cleaning on."""
    before: list[JsonValue] = json.loads((work.folder("documents") / "steps.json").read_text(encoding="utf-8"))["steps"]
    documents = rows_of(work.folder("documents") / "documents.parquet")
    # Interactions that nobody commented teach nothing; counting them would make another dataset of every request.
    said = pq.read_metadata(work.folder("sources") / "feedback.parquet").num_rows
    told = [
        ("examples of documents and feedback", documents + said, counts.every),
        ("dropped personal data", counts.every, counts.gathered),
        ("duplicate examples", counts.gathered, counts.unique),
        ("planted examples", counts.unique, counts.trusted),
        ("bridging examples", counts.trusted, counts.split),
        ("contaminated examples", counts.split, counts.clean),
        ("sealed rows put aside", counts.clean, counts.rows),
    ]
    return [*before, *({"step": step, "in": took, "out": gave} for step, took, gave in told)]


def _observed(work: Work) -> dict[str, JsonValue]:
    if not isinstance(work.observed, dict):
        raise TypeError("the stage 'dataset' observes a table")
    return work.observed


def _previous(work: Work) -> dict[str, Side]:
    before = _observed(work)["sides"]
    return read_sides(work.platform.lake.path(Ref.parse(str(before))) / "sides.parquet") if before else {}


def _seen(look: Look) -> dict[str, JsonValue]:
    """What changes the rows and stands in no setting: the sealed set, and the contents of files."""
    state, trusted = looks.sealed(look.platform, look.name), look.task.poisoning.trusted
    file = look.platform.settings.root / trusted if trusted else None
    return {
        "shown": state.shown,
        "filling": state.filling,
        "trusted": hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else None,
        "benchmarks": [[each.name, each.digest] for each in _benchmarks(look)],
    }


def _benchmarks(look: Look) -> list[contamination.File]:
    settings = look.platform.settings
    where = settings.place("tasks", look.name, "split", "benchmarks")
    return contamination.benchmark_files(look.task.split.benchmarks, settings.root, where)


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
