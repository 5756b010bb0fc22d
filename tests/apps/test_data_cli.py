"""`noria data` as a person types it, on the real stages."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from noria.apps import adding, start, versions
from noria.apps.cli import app
from noria.backends.folder_lake import content_digest
from noria.datasets import card, clean
from noria.errors import Conflict, Invalid, NoriaError, NotFound, Unavailable
from noria.settings import load
from noria.stage import Look
from noria.types import Artifact, Candidate, Cycle, Decision, Deployment, Ref, Run
from noria.wiring import open_project

ROWS = 30
COMMANDS = ("add", "make", "list", "show", "profile", "diff", "card", "remove")


def run(*words: str, project: Path) -> str:
    done = CliRunner().invoke(app, [*words, "--project", str(project)])
    if isinstance(done.exception, NoriaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def told(*words: str, project: Path) -> Any:
    return json.loads(run(*words, "--json", project=project))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions: in the second an answer is another, a row is new, one is gone, and a row is broken."""
    folder = tmp_path_factory.mktemp("data") / "shop"
    start.make(folder)
    file = folder / "data" / "faq.csv"
    rows = "".join(file.read_text().splitlines(keepends=True)[: 1 + ROWS])
    file.write_text(rows + "How  do I   reach you?,Write to ann@example.org or call\xa0us.\n")
    run("run", "dataset", project=folder)
    text = file.read_text().replace("Four euros; nothing above fifty euros.", "Five euros.")
    lines = [line for line in text.splitlines() if not line.startswith("Do you have a shop")]
    file.write_text("\n".join([*lines, "Do you sell lids?,All sizes.", "one value of ann@example.org"]) + "\n")
    run("run", "dataset", project=folder)
    return folder


@pytest.mark.parametrize("word", COMMANDS)
def test_every_command_has_an_example(word: str) -> None:
    assert "Example: noria data" in CliRunner().invoke(app, ["data", word, "--help"]).output


@pytest.mark.slow
def test_versions_are_listed_newest_first_and_found_by_short_names(project: Path) -> None:
    found = told("data", "list", project=project)
    assert [each["kind"] for each in found] == ["dataset", "documents"] * 2
    assert [each["rows"] for each in found] == [31, 31, 31, 31]
    assert all(each["serves"] == [] and each["cycle"] and each["at"] for each in found)
    platform, newest = open_project(project), found[0]["ref"]
    digest = newest.rpartition("@")[2]
    for name in ("latest", "dataset", "dataset@latest", digest[:6], f"dataset:helpdesk@{digest[:5]}…", newest):
        assert str(versions.find(platform, "helpdesk", name).ref) == newest
    assert str(versions.find(platform, "helpdesk", "documents@previous").ref) == found[3]["ref"]
    with pytest.raises(NotFound, match="no version '0000'"):
        versions.find(platform, "helpdesk", "0000")
    with pytest.raises(Invalid, match="may be"):
        versions.find(platform, "helpdesk", "dataset@")
    with pytest.raises(Invalid, match="no version of data"):
        versions.find(platform, "helpdesk", "adapter@latest")
    assert newest in run("data", "list", project=project)


@pytest.mark.slow
def test_rows_are_shown_with_their_raw_text_and_sealed_ones_only_on_request(project: Path) -> None:
    shown = told("data", "show", "--rows", "99", "--raw", project=project)
    assert shown.keys() >= {"dataset", "rows", "train", "test", "steps", "quarantined", "personal_data"}
    assert (shown["rows"], shown["quarantined"]) == (31, 1)
    assert len(shown["samples"]) == shown["train"] == 31 - shown["sealed"]
    everything = told("data", "show", "--rows", "99", "--raw", "--sealed", project=project)
    assert len(everything["samples"]) == 31
    (reached,) = [row for row in everything["samples"] if "reach" in row["question"]]
    assert (reached["question"], "<email>" in reached["answer"]) == ("How do I reach you?", True)
    assert "How  do I   reach you?" in reached["raw_text"]
    assert "call us" in reached["cleaned_text"]
    side = told("data", "show", "--rows", "99", "--side", "test", "--sealed", project=project)
    assert {row["split"] for row in side["samples"]} == {"test"}
    for ref in ("latest", "documents@latest"):
        with pytest.raises(NotFound, match="has no source 'fqa'") as raised:
            run("data", "show", ref, "--source", "fqa", project=project)
        assert "did you mean 'faq'?" in raised.value.hint
    assert told("data", "show", "--slice", "traffic", "--source", "traffic", project=project)["samples"] == []
    documents = told("data", "show", "documents@latest", "--rows", "2", "--source", "faq", project=project)
    assert [row["file"] for row in documents["samples"]] == ["data/faq.csv"] * 2
    assert "sealed" in run("data", "show", project=project)
    with pytest.raises(Invalid, match="neither a data set nor documents"):
        run("data", "show", "sources@latest", project=project)


@pytest.mark.slow
def test_a_profile_counts_and_draws(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "profile"
    profile = told("data", "profile", "--out", str(out), project=project)
    assert profile["rows"] == {"train": profile["rows"]["train"], "test": 31 - profile["rows"]["train"],
                               "documents": 31, "collected": 31}  # fmt: skip
    assert set(profile["lengths"]) == {"question", "answer", "context", "document"}
    words = profile["lengths"]["question"]["words"]
    assert words["least"] <= words["p5"] <= words["median"] <= words["p95"] <= words["most"]
    assert sum(words["histogram"]["rows"]) == 31
    assert next(iter(profile["languages"])) == "en"
    assert profile["origins"] == {"source:faq": 31}
    assert profile["sources"][0]["files"][0]["documents"] == 31
    (reason,) = profile["quarantine"]["reasons"]
    assert (reason["source"], reason["rows"]) == ("faq", 1)
    assert "ann@" not in json.dumps(profile["quarantine"])
    assert profile["personal_data"]["email"] >= 1
    assert profile["duplicates"]["exact duplicates"] == 0
    assert json.loads((out / "profile.json").read_text())["rows"] == profile["rows"]
    for picture in ("lengths.png", "steps.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    assert "near duplicates" in run("data", "profile", "documents@latest", project=project)


@pytest.mark.slow
def test_a_diff_tells_added_removed_and_changed_rows(project: Path) -> None:
    found = told("data", "diff", "--sealed", "--rows", "9", project=project)
    counts = {what: found[what]["rows"] for what in ("added", "removed", "changed")}
    assert counts == {"added": 1, "removed": 1, "changed": 1}
    assert found["moved"] == 0
    (pair,) = found["changed"]["samples"]
    assert (pair["old"]["answer"][:4], pair["new"]["answer"]) == ("Four", "Five euros.")
    assert found["added"]["samples"][0]["question"] == "Do you sell lids?"
    assert found["removed"]["by"] == {"source:faq": 1}
    documents = told("data", "diff", "documents@previous", "documents@latest", project=project)
    assert [documents[what]["rows"] for what in ("added", "removed", "changed")] == [1, 1, 1]
    same = told("data", "diff", "latest", "latest", project=project)
    assert [same[what]["rows"] for what in ("added", "removed", "changed")] == [0, 0, 0]
    sealed = told("data", "diff", "--rows", "9", project=project)
    rows = [*sealed["added"]["samples"], *sealed["removed"]["samples"]]
    assert all(("question" in row) != (row["split"] == "test") for row in rows)
    with pytest.raises(Invalid, match="cannot be compared"):
        run("data", "diff", "latest", "documents@latest", project=project)


@pytest.mark.slow
def test_every_data_set_has_a_card_that_a_hub_reads(project: Path, tmp_path: Path) -> None:
    card = told("data", "card", "--out", str(tmp_path / "card"), project=project)
    folder = Path(card["file"]).parent
    assert content_digest(folder) == card["dataset"].rpartition("@")[2]
    kept = json.loads((folder / "card.json").read_text())
    assert "at" not in kept
    assert [Ref.parse(ref).kind for ref in kept["parents"]] == ["documents"]
    assert [Ref.parse(ref).kind for ref in card["parents"]] == ["sources", "documents"]
    assert kept["sources"][0]["files"][0]["sha256"]
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    matter = yaml.safe_load(front)
    assert (matter["language"], matter["license"], matter["size_categories"]) == (["en"], "unknown", ["n<1K"])
    assert matter["task_categories"] == ["text-generation", "question-answering"]
    assert [each["num_examples"] for each in matter["dataset_info"]["splits"]] == [
        card["rows"]["train"], card["rows"]["test"],
    ]  # fmt: skip
    assert "| near | 31 | 31 |" in body
    assert "In this lake" in (tmp_path / "card" / "README.md").read_text()
    assert f"version: `{card['dataset']}`" in run("data", "card", project=project)
    with pytest.raises(NotFound, match="has no card"):
        run("data", "card", "documents@latest", project=project)


@pytest.mark.slow
def test_a_licence_stands_on_the_card_and_changes_the_version(tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    file = tmp_path / "shop" / "noria.toml"
    run("run", "dataset", project=tmp_path / "shop")
    before = told("data", "card", project=tmp_path / "shop")
    file.write_text(file.read_text().replace('kind = "csv"\n', 'kind = "csv"\nlicence = "cc-by-4.0"\n'))
    run("run", "dataset", project=tmp_path / "shop")
    after = told("data", "card", project=tmp_path / "shop")
    assert (before["sources"][0]["licence"], after["sources"][0]["licence"]) == (None, "cc-by-4.0")
    assert told("data", "diff", project=tmp_path / "shop")["added"]["rows"] == 0
    assert "license: cc-by-4.0" in run("data", "card", project=tmp_path / "shop")


@pytest.mark.slow
def test_what_serves_and_the_newest_sides_are_not_removed(project: Path) -> None:
    platform = open_project(project)
    old = versions.find(platform, "helpdesk", "previous")
    served = Candidate(
        task="helpdesk", base=Ref(kind="base", name="b", digest="0" * 16), adapter=None, engine="local",
        quantization="q", prompt="0" * 16, index=old.ref,
    )  # fmt: skip
    decision = Decision(verdict="promote", because="a test", evidence={})
    live = Deployment(
        task="helpdesk", version=1, champion=served, previous=None, decision=decision, cycle="", actor="a test",
        at=platform.clock.now(),
    )  # fmt: skip
    platform.deployments.swap(live)
    assert told("data", "list", project=project)[2]["serves"] == ["champion"]
    with pytest.raises(Conflict, match="the champion of 'helpdesk' was made from"):
        run("data", "remove", "previous", "--yes", project=project)
    with pytest.raises(Conflict, match="the champion"):
        run("data", "remove", "documents@previous", "--yes", project=project)
    platform.deployments.swap(live.model_copy(update={"version": 2, "champion": None}))
    with pytest.raises(Conflict, match="is the newest data set"):
        run("data", "remove", "latest", "--yes", project=project)
    asked = CliRunner().invoke(app, ["data", "remove", "previous", "--project", str(project)], input="n\n")
    assert (asked.exit_code, platform.lake.has(old.ref)) == (1, True)
    assert told("data", "remove", "previous", "--yes", project=project)["removed"] == str(old.ref)
    assert not platform.lake.has(old.ref)
    assert [each["kind"] for each in told("data", "list", project=project)] == ["dataset", "documents", "documents"]


@pytest.mark.slow
def test_versions_are_scanned_by_the_names_they_are_shown_by(project: Path) -> None:
    digest = told("data", "list", project=project)[0]["ref"].rpartition("@")[2]
    for what in (
        "helpdesk",
        "dataset@latest",
        "latest",
        f"dataset:helpdesk@{digest[:6]}",
        f"dataset:helpdesk@{digest}",
    ):
        assert told("scan", what, project=project)["leaks"] == {}
    with pytest.raises(NotFound, match="is no file, no task and no artifact"):
        run("scan", "nothing.csv", project=project)


@pytest.mark.slow
def test_the_card_tells_what_was_done_with_personal_data(tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    settings = tmp_path / "shop" / "noria.toml"
    settings.write_text(settings.read_text() + '\n[tasks.helpdesk.scrub]\nactions = { email = "pseudonym" }\n')
    file = tmp_path / "shop" / "data" / "faq.csv"
    file.write_text(file.read_text() + "How do I reach you?,Write to ann@example.org\n")
    run("run", "dataset", project=tmp_path / "shop")
    card = run("data", "card", project=tmp_path / "shop")
    assert re.search(r"\| email \| \d+ \| replaced by a pseudonym \|", card)


def test_what_another_task_reads_makes_no_other_documents(tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    file = tmp_path / "shop" / "noria.toml"
    text = file.read_text()

    def params(more: str, context: str = "faq") -> tuple[Any, Any]:
        file.write_text(text.replace('context = { source = "faq"', f'context = {{ source = "{context}"') + more)
        platform = open_project(tmp_path / "shop")
        look = Look(platform, "helpdesk", platform.settings.tasks["helpdesk"], {})
        return clean.params(look), card.params(look)

    before = params("")
    other = '[[sources]]\nname = "pages"\nkind = "jsonl"\npath = "p"\nmap = { question = "q", answer = "a" }\n'
    assert params(other) == before
    cleaned, told = params(other, context="pages")
    assert sorted(cleaned["columns"]) == sorted(told["licences"]) == ["faq", "pages"]


@pytest.mark.slow
def test_a_file_in_the_place_of_a_folder_is_one_clear_message(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for word in ("card", "profile"):
        for place in ("file", "file/below"):
            with pytest.raises(Invalid, match="is no folder"):
                run("data", word, "--out", str(tmp_path / place), project=project)


TWO = """
[tasks.shop]
sources = ["faq"]
base = "smollm2-135m-instruct"
engine = "local"
"""


def test_a_version_of_another_task_is_kept_for_that_task_s_reasons(tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    file = tmp_path / "shop" / "noria.toml"
    file.write_text(file.read_text() + TWO)
    platform = open_project(tmp_path / "shop")
    refs = []
    for number in range(2):
        began = platform.clock.now() + timedelta(seconds=number)
        made = Cycle(id=f"{number:016x}", task="shop", began=began, ended=began if number else None)
        folder = platform.lake.scratch(f"test-{number}")
        (folder / "x").write_text(str(number))
        refs.append(platform.lake.commit(folder, "dataset", "shop"))
        key = f"{number + 1:016x}"
        platform.runs.save(made)
        platform.runs.record(
            Run(key=key, stage="dataset", task="shop", cycle=made.id, output=refs[-1], seconds=0, peak_mb=0, at=began),
            Artifact(ref=refs[-1], parents=(), run_key=key, meta={}),
        )
    old, newest = (str(ref) for ref in refs)
    for ref, because in ((newest, "is the newest data set of 'shop'"), (old, "of 'shop' has not ended")):
        with pytest.raises(Conflict, match=because):
            run("data", "remove", ref, "--yes", "--task", "helpdesk", project=tmp_path / "shop")
    assert all(platform.lake.has(ref) for ref in refs)


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    """A folder of several kinds, as somebody may have it."""
    folder = tmp_path / "hand book"
    (folder / "pages" / "more").mkdir(parents=True)
    for number in range(6):
        page = folder / "pages" / ("more" if number % 2 else "") / f"page{number}.html"
        topics = ("parcels", "invoices", "returns", "lids", "kettles", "aprons")
        page.write_text(
            f"<h1>Where are {topics[number]}?</h1><p>{topics[number]} lie on shelf {number} by the door.</p>"
            f"<h2>Who keeps {topics[number]}?</h2><p>The people of team {number} keep all {topics[number]}.</p>"
        )
    (folder / "notes.txt").write_text("Some words on nothing much.\n\nAnd some more of them.\n")
    (folder / "ask.csv").write_text(
        "Question,Answer,thread\nWhen do you open?,At nine.,t1\nWhen do you close?,At six.,t2\n"
    )
    (folder / "prices.csv").write_text("item,price\nlid,3\nkettle,20\n")
    (folder / "photo.raw").write_bytes(b"\x00\x01\x02")
    (folder / ".secret.csv").write_text("question,answer\na,b\n")
    (folder / "link.csv").symlink_to("/etc/hostname")
    with sqlite3.connect(folder / "shop.db") as database:
        database.execute('create table faq (question text, answer text, "order" int)')
        database.execute("insert into faq values ('Is there a shop?', 'Yes, at Mill Lane.', 1)")
        database.execute("create table stock (item text, left int)")
        database.execute("insert into stock values ('lid', 3)")
    return folder


def test_files_are_found_out_and_proposed(handbook: Path, tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    before = (tmp_path / "shop" / "noria.toml").read_text()
    dry = told("data", "add", str(handbook), "--dry-run", "--licence", "cc-by-4.0", project=tmp_path / "shop")
    assert not dry["written"]
    assert (tmp_path / "shop" / "noria.toml").read_text() == before
    added = {each["name"]: each for each in dry["added"]}
    pages = added.pop("hand-book-html")
    assert (pages["files"], pages["map"], pages["licence"]) == (
        6,
        {"question": "heading", "answer": "body"},
        "cc-by-4.0",
    )
    assert pages["path"].endswith("hand book/**/*.html")
    assert added.pop("hand-book-text").keys() == {"name", "kind", "path", "files", "licence"}
    asked = added.pop("hand-book-csv-ask")
    assert asked["map"] == {"question": "Question", "answer": "Answer", "conversation": "thread"}
    assert "map" not in added.pop("hand-book-csv-prices")
    table = added.pop("hand-book-sql-faq")
    assert (table["map"], table["query"]) == (
        {"question": "question", "answer": "answer"},
        'select question, answer, "order" from faq',
    )
    assert list(added) == ["hand-book-sql-stock"]
    assert dry["skipped"] == [{"file": "photo.raw", "because": "of no known kind"}]


@pytest.mark.slow
def test_one_command_makes_a_data_set_with_its_card_from_a_folder(handbook: Path, tmp_path: Path) -> None:
    project = tmp_path / "fresh"
    project.mkdir()
    card = told("data", "make", str(handbook), project=project)
    assert Path(card["file"]).name == "README.md"
    assert card["rows"]["train"] + card["rows"]["test"] == 15
    assert {each["source"]: each["documents"] for each in card["sources"]} == {
        "hand-book-csv-ask": 2, "hand-book-csv-prices": 2, "hand-book-html": 12, "hand-book-sql-faq": 1,
        "hand-book-sql-stock": 1, "hand-book-text": 2,
    }  # fmt: skip
    text = (project / "noria.toml").read_text()
    again = told("data", "make", str(handbook), project=project)
    assert (again["dataset"], again["added"]) == (card["dataset"], [])
    assert (project / "noria.toml").read_text() == text
    assert "nothing new" in run("data", "add", str(handbook), project=project)


@pytest.mark.slow
def test_places_that_hold_nothing_are_one_clear_message(tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.raw").write_bytes(b"\x00")
    for place, error, fact in (
        (str(tmp_path / "none"), NotFound, "there is no"),
        (str(tmp_path / "empty"), Invalid, "nothing to read"),
        (str(tmp_path / "photo.raw"), Invalid, "nothing to read"),
        ("postgresql://ann:secret@127.0.0.1:9/shop", Invalid, "holds a password"),
        ("postgresql+psycopg://ann@127.0.0.1:9/shop", Unavailable, "cannot be opened"),
        ("nothing://x", Invalid, "is no address"),
        ("https://me:secret@example.org/docs", Invalid, "holds a password"),
        ("https://example.org/docs?Password=secret", Invalid, "holds a password"),
        ("postgresql+psycopg://me@127.0.0.1:9/shop?password=secret", Invalid, "holds a password"),
        ("postgresql+psycopg://me:secret/x@127.0.0.1:9/shop", Invalid, "holds a password"),
        ("postgresql+psycopg://me:secret[@127.0.0.1:9/shop", Invalid, "cannot be read"),
        ("s3://bucket/orders.csv", Invalid, "are not looked into"),
        ("sqlite:///nope.db", NotFound, "there is no database 'nope.db'"),
    ):
        with pytest.raises(error, match=fact) as raised:
            run("data", "add", place, project=tmp_path / "shop")
        assert "secret" not in str(raised.value)
    assert not (tmp_path / "shop" / "nope.db").exists()


def test_what_cannot_be_opened_or_is_named_twice_does_not_end_the_rest(tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    folder = tmp_path / "orders #1, 100%20"
    folder.mkdir()
    (folder / "orders.csv").write_text("question,answer\nWhy?,So.\n")
    (folder / "broken.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 4096)
    with closing(sqlite3.connect(folder / "good.db")) as database, database:
        database.execute("create table stock (item text)")
    found = told("data", "add", str(folder), str(folder), project=tmp_path / "shop")
    assert [each["kind"] for each in found["added"]] == ["sql", "csv"]
    assert {each["file"] for each in found["skipped"]} == {"broken.db"}
    assert "cannot be opened" in found["skipped"][0]["because"]


def test_files_without_a_suffix_are_sources_of_their_own(tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    folder = tmp_path / "post"
    folder.mkdir()
    (folder / "inbox").write_text("From a@x.example Thu Jan  4 10:00:00 2024\nFrom: a@x.example\nSubject: b\n\nWhy?\n")
    (folder / "orders.csv").write_text("question,answer\nWhy?,So.\n")
    (folder / "more.csv").write_text("question,answer\nWho?,I.\n")
    added = told("data", "add", str(folder), project=tmp_path / "shop")["added"]
    assert {Path(each["path"]).name for each in added} == {"inbox", "*.csv"}


def test_a_task_that_cannot_be_named_so_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\nWhy?,So.\n")
    with pytest.raises(Invalid, match="'a b' is no name of a task"):
        run("data", "add", str(tmp_path / "a.csv"), "--task", "a b", project=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


TASKS = {
    "one line": 'sources = ["faq"]',
    "comma at the end": 'sources = [\n  "faq",  # pages ] and "more"\n]',
    "comment at the end": "sources = [\n  'faq'  # pages, ]\n  # no more\n]",
}


@pytest.mark.parametrize("form", TASKS)
def test_the_file_keeps_its_form(tmp_path: Path, form: str) -> None:
    start.make(tmp_path / "shop")
    file = tmp_path / "shop" / "noria.toml"
    text = file.read_text().replace('sources = ["faq"]', TASKS[form])
    file.write_text(text)
    (tmp_path / "shop" / "more.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    run("data", "add", str(tmp_path / "shop" / "more.jsonl"), "--name", "More rows", project=tmp_path / "shop")
    settings = load(file)
    assert settings.tasks["helpdesk"].sources == ("faq", "more-rows")
    assert settings.source("more-rows").map == {"question": "prompt", "answer": "completion"}
    assert settings.source("more-rows").path == "more.jsonl"
    kept = file.read_text().splitlines()
    assert len([line for line in text.splitlines() if line not in kept]) == 1


def test_a_list_that_cannot_be_found_is_added_to_by_hand(tmp_path: Path) -> None:
    start.make(tmp_path / "shop")
    file = tmp_path / "shop" / "noria.toml"
    head, tail = file.read_text().split("[tasks.helpdesk]")
    inline = 'tasks = { helpdesk = { sources = ["faq"], base = "smollm2-135m-instruct", engine = "local" } }\n'
    file.write_text(inline + head)
    (tmp_path / "shop" / "more.csv").write_text("question,answer\na,b\n")
    with pytest.raises(Invalid, match="are not a list of their own line"):
        run("data", "add", str(tmp_path / "shop" / "more.csv"), project=tmp_path / "shop")
    assert file.read_text() == inline + head
    assert list((tmp_path / "shop").glob(".*.new")) == []
    assert adding.root_of(tmp_path / "shop") == tmp_path / "shop"
    assert tail


@pytest.mark.slow
def test_a_project_of_its_own_folder_never_reads_its_own_product(tmp_path: Path) -> None:
    folder = tmp_path / "docs" / "en"
    folder.mkdir(parents=True)
    asked = [{"question": f"What is {number}?", "answer": f"Number {number} is a number."} for number in range(8)]
    (folder / "faq.json").write_text(json.dumps(asked))
    (folder / "a.md").write_text("# Where?\n\nAt the door of the shop.\n")
    card = told("data", "make", str(tmp_path), project=tmp_path)
    assert list((tmp_path / "lake").rglob("card.json"))
    for _ in range(2):
        run("run", "dataset", project=tmp_path)
        assert told("data", "list", project=tmp_path)[0]["ref"] == card["dataset"]
