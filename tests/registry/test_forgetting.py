"""`noria forget` from end to end on a small project: rows leave what holds them, what learned from them is named."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trial_fakes import NEW, OLD, learned, make, opened, serving
from typer.testing import CliRunner

from noria import pseudonyms
from noria.apps.cli import app
from noria.gateway.record import pseudonym
from noria.lake.parquet import write_traffic
from noria.ports import Platform
from noria.stage import Look
from noria.traffic.segments import SegmentWriter
from noria.training.recipes import lora
from noria.types import Artifact, Cycle, Feedback, Interaction, Ref, Run, new_id

JANE = "customer-17"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "shop", "canary = 0.1\ncontrol = 0.05\nbudget = 600\ndays = 7")


@pytest.fixture
def platform(folder: Path) -> Platform:
    return opened(folder)[0]


class Made:
    """A cycle's artifacts by hand, with a row of Jane's and one of Tom's in each."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.secret = pseudonyms.read(platform.settings.state / "secret")
        self.records = [self.said(1, JANE), self.said(2, "tom")]
        self.cycle = Cycle(id=new_id(platform.clock.now()), task="helpdesk", began=platform.clock.now())
        platform.runs.save(self.cycle)
        with SegmentWriter(platform.settings.state / "segments") as writer:
            for record in self.records:
                writer.append(record.model_dump_json().encode())
        self.sources = self.put("sources", (), self.write_sources)
        self.dataset = self.put("dataset", (self.sources,), self.write_dataset)
        self.features = self.put("features", (self.dataset,), self.write_features)
        self.report = self.put("report", (self.dataset,), self.write_report)

    def said(self, number: int, user: str) -> Interaction:
        at = self.platform.clock.now()
        return Interaction(
            id=f"i{number}", at=at, task="helpdesk", served_by="x", user=pseudonym(self.secret, user),
            conversation=f"c{number}", messages=({"role": "user", "content": f"I am {user}"},), context=None,
            answer="Hello.", finish_reason="stop", status=200, error=None, stream=False, prompt_tokens=1,
            completion_tokens=1, first_token_seconds=None, seconds=0.1, trainable=True,
        )  # fmt: skip

    def put(self, kind: str, parents: tuple[Ref, ...], write: Any) -> Ref:
        out = self.platform.lake.scratch(kind)
        write(out)
        ref = self.platform.lake.commit(out, kind, "helpdesk")
        self.record(ref, kind, parents)
        return ref

    def record(self, ref: Ref, kind: str, parents: tuple[Ref, ...], cycle: Cycle | None = None) -> None:
        run = Run(
            key=f"{len(kind):016}", stage=kind, task="helpdesk", cycle=(cycle or self.cycle).id, output=ref,
            seconds=0.0, peak_mb=0.0, at=self.cycle.began,
        )  # fmt: skip
        self.platform.runs.record(run, Artifact(ref=ref, parents=parents, run_key=run.key))

    def write_sources(self, out: Path) -> None:
        write_traffic(self.records, out / "interactions.parquet")
        note = Feedback(
            id="f1", at=self.cycle.began, interaction="i1", metric="thumbs", value=1.0, correction=None, user="x" * 16
        )
        write_traffic([note], out / "feedback.parquet")
        pq.write_table(pa.table({"id": ["d1"], "text": ["faq"], "conversation": ["d1"]}), out / "documents.parquet")

    def write_dataset(self, out: Path) -> None:
        rows = {
            "id": ["e1", "e2", "e3"], "origin": ["traffic:thumbs", "traffic:thumbs", "source:faq"],
            "conversation": ["c1", "c2", "c1"], "target": [JANE, "tom", "faq"],
        }  # fmt: skip
        pq.write_table(pa.table(rows), out / "train.parquet")
        pq.write_table(pa.table({"member": ["m"], "side": ["train"]}), out / "sides.parquet")

    def write_features(self, out: Path) -> None:
        pq.write_table(pa.table({"id": ["e1", "e2", "e3"], "tokens": [1, 2, 3]}), out / "features.parquet")

    def write_report(self, out: Path) -> None:
        rows = [{"id": name, "question": name, "candidate": "x"} for name in ("e1", "e2")]
        (out / "report.json").write_text(json.dumps({"rows": rows, "intervals": {}}))
        (out / "answers.jsonl").write_text('["candidate", "prompt", "x"]\n')
        (out / "report.html").write_text(JANE)


@pytest.fixture
def made(platform: Platform) -> Made:
    return Made(platform)


def asked(folder: Path, *more: str, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["forget", *more, "--json", "--project", str(folder)])
    assert done.exit_code == code, done.output
    told: dict[str, Any] = json.loads(done.stdout) if code == 0 else {}
    return told


def ids(made: Made, ref: Ref, file: str) -> list[str]:
    found: list[str] = pq.read_table(made.platform.lake.path(ref) / file)["id"].to_pylist()
    return found


def test_rows_leave_and_adapters_are_named(folder: Path, platform: Platform, made: Made) -> None:
    tainted, clean = learned(platform, NEW), learned(platform, OLD)
    assert tainted.adapter is not None
    assert clean.adapter is not None
    made.record(tainted.adapter, "adapter", (made.features,))
    serving(platform, tainted)
    probes = platform.lake.path(tainted.adapter) / "probes.json"
    probes.write_text(f'["{JANE}"]')
    snapshot = platform.settings.state / "snapshot.json"
    snapshot.write_text(JANE)
    told = asked(folder, JANE)
    assert not probes.exists()
    assert not snapshot.exists()
    assert (told["interactions"], told["feedback"]) == (1, 0)
    assert told["rows"] == {str(made.sources): 2, str(made.dataset): 1, str(made.features): 1, str(made.report): 1}
    assert told["adapters"] == [str(tainted.adapter)]
    assert [each["role"] for each in told["serving"]] == ["champion"]
    assert told["retrain"]
    assert ids(made, made.dataset, "train.parquet") == ["e2", "e3"]
    assert ids(made, made.features, "features.parquet") == ["e2", "e3"]
    assert ids(made, made.sources, "interactions.parquet") == ["i2"]
    assert ids(made, made.sources, "feedback.parquet") == []
    assert ids(made, made.sources, "documents.parquet") == ["d1"]
    report = platform.lake.path(made.report)
    assert [row["id"] for row in json.loads((report / "report.json").read_text())["rows"]] == ["e2"]
    assert not (report / "report.html").exists()
    assert (platform.lake.path(made.dataset) / "sides.parquet").is_file()
    assert platform.traffic.interaction("i1") is None
    assert platform.traffic.interaction("i2") is not None
    name, task = platform.settings.task("helpdesk")
    features = Artifact(ref=Ref(kind="features", name="helpdesk", digest="9" * 16), parents=(), run_key="9" * 16)
    assert lora.observes(Look(platform, name, task, {"features": features})) is None
    again = asked(folder, JANE, code=1)
    assert again == {}


def test_what_went_on_from_an_adapter_is_named_whatever_cycle_took_it_again(
    folder: Path, platform: Platform, made: Made
) -> None:
    first, second = learned(platform, NEW).adapter, learned(platform, OLD).adapter
    assert first is not None
    assert second is not None
    # The third cycle skips the training: it takes the first one's adapter again.
    for number, (ref, parents) in enumerate([(first, (made.features,)), (second, (first,)), (first, (made.features,))]):
        at = made.cycle.began + timedelta(hours=number + 1)
        cycle = Cycle(id=new_id(at), task="helpdesk", began=at)
        platform.runs.save(cycle)
        made.record(ref, "adapter", parents, cycle)
    assert sorted(asked(folder, JANE)["adapters"]) == sorted(map(str, (first, second)))


def test_what_the_person_said_of_others_answers_leaves_with_what_was_suspected(
    folder: Path, platform: Platform, made: Made
) -> None:
    note = Feedback(
        id="f2", at=made.cycle.began, interaction="i3", metric="correction", value=None, correction="I am Jane.",
        user=pseudonym(made.secret, JANE),
    )  # fmt: skip
    with SegmentWriter(platform.settings.state / "segments") as writer:
        for record in (note, made.said(3, "tom")):
            writer.append(record.model_dump_json().encode())

    def rows(out: Path, name: str, *rows: tuple[str, str, str]) -> None:
        columns = zip(*rows, strict=True)
        names = ("id", "origin", "conversation")
        pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), out / name)

    def write(out: Path) -> None:
        rows(out, "pairs.parquet", ("p3", "traffic:correction", "c3"), ("p2", "traffic:correction", "c2"))
        corrected = ("e4", "traffic:correction", "c3")
        rows(out, "train.parquet", corrected, ("e5", "source:faq", "c3"), ("e6", "traffic:thumbs", "c2"))
        suspects = {"row": ["e4", "e5"], "rule": ["flood", "flood"], "score": [0.5, 0.5]}
        pq.write_table(pa.table(suspects), out / "suspects.parquet")

    def write_features(out: Path) -> None:
        pq.write_table(pa.table({"id": ["e4", "e5", "e6"], "tokens": [1, 2, 3]}), out / "features.parquet")

    dataset = made.put("dataset", (), write)
    features = made.put("features", (dataset,), write_features)
    told = asked(folder, JANE)
    assert (told["rows"][str(dataset)], told["rows"][str(features)]) == (3, 1)
    assert ids(made, dataset, "train.parquet") == ["e5", "e6"]
    assert ids(made, dataset, "pairs.parquet") == ["p2"]
    assert ids(made, features, "features.parquet") == ["e5", "e6"]
    suspects = pq.read_table(platform.lake.path(dataset) / "suspects.parquet")
    assert suspects["row"].to_pylist() == ["e5"]
    assert platform.traffic.interaction("i3") is not None
    assert "phrases of planted rows" in told["not_reached"]


def test_the_record_says_how_many_and_not_who(folder: Path, platform: Platform, made: Made) -> None:
    told = asked(folder, JANE)
    kept = platform.lake.path(Ref.parse(told["record"])) / "forgetting.json"
    act = json.loads(kept.read_text())
    assert act["interactions"] == 1
    assert act["at"]
    assert act["actor"]
    assert JANE not in kept.read_text()
    assert pseudonym(made.secret, JANE) not in kept.read_text()
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix != ".parquet":
            assert JANE.encode() not in file.read_bytes(), file


def test_a_dry_run_removes_nothing(folder: Path, platform: Platform, made: Made) -> None:
    dry = asked(folder, JANE, "--dry-run")
    assert platform.traffic.interaction("i1") is not None
    assert ids(made, made.dataset, "train.parquet") == ["e1", "e2", "e3"]
    told = asked(folder, pseudonym(made.secret, JANE), "--logged", "--no-purge")
    assert told["rows"] == dry["rows"]
    assert ids(made, made.dataset, "train.parquet") == ["e1", "e2", "e3"]


def test_nobody_and_a_running_cycle_are_refused(folder: Path, platform: Platform, made: Made) -> None:
    asked(folder, "nobody", code=1)
    locks = platform.settings.state / "locks"
    locks.mkdir(exist_ok=True)
    with (locks / "cycle-helpdesk.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        asked(folder, JANE, code=1)
    assert platform.traffic.interaction("i1") is not None


KILLED = """
import os, sys
from noria.apps import cli
from noria.registry import forgetting
from noria.traffic import forget as log
left = int(sys.argv[1])
def dying(work):
    def step(*arguments):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return work(*arguments)
    return step
forgetting._synced = dying(forgetting._synced)
log._out_of_segment, log._out_of_parquet = dying(log._out_of_segment), dying(log._out_of_parquet)
cli.app(["forget", *sys.argv[2:]])
"""


@pytest.mark.slow
def test_killed_at_any_point_a_second_run_finds_the_rest(
    folder: Path, platform: Platform, made: Made, kills: int
) -> None:
    note = Feedback(
        id="f9", at=made.cycle.began, interaction="i1", metric="thumbs", value=0.0, correction=None, user="0" * 16
    )
    with SegmentWriter(platform.settings.state / "segments") as writer:
        writer.append(note.model_dump_json().encode())
    platform.traffic.ship()
    adapter = learned(platform, NEW).adapter
    assert adapter is not None
    made.record(adapter, "adapter", (made.features,))
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    codes = []
    for number in range(0, 100, 1 if kills >= 20 else 4):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        command = [sys.executable, "-c", KILLED, str(number), JANE, "--project", str(folder)]
        codes.append(subprocess.run(command, capture_output=True, check=False).returncode)
        if codes[-1] == 0:
            break
        asked(folder, JANE)
        platform = opened(folder)[0]
        assert (platform.lake.path(adapter) / "forgotten.json").is_file(), number
        assert ids(made, made.features, "features.parquet") == ["e2", "e3"], number
        assert ids(made, made.dataset, "train.parquet") == ["e2", "e3"], number
        assert ids(made, made.sources, "interactions.parquet") == ["i2"], number
        report = json.loads((platform.lake.path(made.report) / "report.json").read_text())
        assert [row["id"] for row in report["rows"]] == ["e2"], number
        assert platform.traffic.interaction("i1") is None, number
        _, said = platform.traffic.read(platform.traffic.mark())
        assert said == [], number
    assert codes == [9] * (len(codes) - 1) + [0]
    assert len(codes) > (10 if kills >= 20 else 2)
