"""`noria data add`: files, folders and databases become sources in noria.toml."""

from __future__ import annotations

import glob
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

from noria.buckets import EXTRAS
from noria.errors import Invalid, NotFound, Unavailable
from noria.lake import sql
from noria.lake.contained import Reader
from noria.lake.kinds import PAGES, kind_of, map_of
from noria.lake.parsers import PARSERS
from noria.lake.read import peek
from noria.settings import Settings, SourceSettings, find, line_of, load
from noria.settings.base import FORMS, NAME

OWN = re.compile(r"noria\.toml|(?:noria|mlflow)\.db.*|lake|__pycache__")
"""What a project keeps beside its data."""
LARGEST = 64 << 20
"""Bytes of a file that is looked into for its columns."""
LOOKS = 3
"""Pages of a folder that are looked into; they are alike."""
ROWS = 200
STORES = {*EXTRAS, "file", "gcs", "gs", "hdfs", "memory", "sftp"}
"""Protocols of fsspec, which a source has in its path."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A source that is not in noria.toml yet: its keys and, for people, how many files it has."""

    keys: dict[str, Any]
    files: int

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.keys["name"])


@dataclass(slots=True)
class Found:
    """What a place has to offer: sources, and what none of noria's readers takes, with the reason."""

    proposals: list[Proposal] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    kind: str
    map: tuple[tuple[str, str], ...]


def look(places: Sequence[str], root: Path, name: str | None, licence: str | None) -> Found:
    """The sources at places: each a folder, a file, a database's URL or the address of a site.

    Raises NotFound for a place that does not exist, Invalid where there is nothing to read.
    """
    found = Found()
    with closing(Reader()) as reader:
        for place in places:
            _look(place, root, name, licence, reader, found)
    return found


def _look(place: str, root: Path, name: str | None, licence: str | None, reader: Reader, found: Found) -> None:
    if "://" in place:
        tables = [*_at_url(place, root)]
    else:
        path = Path(place).resolve()
        if not path.exists():
            raise NotFound(
                f"there is no '{place}'", "name a folder, a file, a database or a site: noria data add --help"
            )
        tables = [*_in_folder(path, root, reader, found)]
    if not tables:
        skipped = "; ".join(f"{file}: {reason}" for file, reason in found.skipped[:3])
        raise Invalid(f"there is nothing to read in '{place}'", skipped or "it holds no files")
    base = _slug(name or _stem(place))
    found_kinds = [table["kind"] for table, _ in tables]
    for table, count in tables:
        title = table.pop("title", "")
        parts = [base, *([table["kind"]] if len(set(found_kinds)) > 1 else [])]
        parts += [title] if title and found_kinds.count(table["kind"]) > 1 and title != base else []
        keys = {"name": _slug("-".join(parts)), **table, **({"licence": licence} if licence else {})}
        found.proposals.append(Proposal(keys, count))


def root_of(project: Path) -> Path:
    """The folder that relative paths start from: that of noria.toml, or where it would be."""
    return find(project.resolve()).parent


def add(project: Path, task: str | None, found: Found, write: bool = True) -> tuple[Path, list[Proposal]]:
    """Write the proposals into noria.toml and into the task's sources; returns the file and what was new.

    The file is written only if all of it is right afterwards. Without one, a project is begun. Sources that are
    there already, by path or by address and query, are passed over.
    """
    file = find(project.resolve())
    if file.is_file():
        settings: Settings | None = load(file)
        text = file.read_text()
    else:
        settings, text = None, (files("noria.apps") / "starter" / "data.toml").read_text()
        text = text.replace("PROJECT", _slug(file.parent.name))
    fresh = _fresh(settings.sources if settings else (), found.proposals)
    name = settings.task(task)[0] if settings else task or _slug(file.parent.name)
    if not re.fullmatch(NAME, name):
        raise Invalid(f"'{name}' is no name of a task", FORMS[NAME])
    text = text if settings else text.replace("TASK", name)
    if fresh:
        text = _with_sources(text, [proposal.keys for proposal in fresh])
        text = _in_task(text, name, [proposal.name for proposal in fresh], file.name)
        trial = file.with_name(f".{file.name}.new")
        trial.write_text(text)
        try:
            load(trial)
            if write:
                trial.replace(file)
        finally:
            trial.unlink(missing_ok=True)
    return file, fresh


def kinds() -> tuple[str, ...]:
    """The kinds of source that this version reads."""
    return tuple(get_args(SourceSettings.model_fields["kind"].annotation))


def _in_folder(path: Path, root: Path, reader: Reader, found: Found) -> Iterator[tuple[dict[str, Any], int]]:
    folder = path if path.is_dir() else path.parent
    groups: dict[str, list[_File]] = {}
    looked: dict[str, int] = {}
    for file in _files(path):
        try:
            kind = kind_of(file)
        except OSError as error:
            found.skipped.append((file.relative_to(folder).as_posix(), f"it cannot be read: {error.strerror}"))
            continue
        if kind is None or kind not in kinds():
            reason = "of no known kind" if kind is None else f"kind {kind} is not read by this version"
            found.skipped.append((file.relative_to(folder).as_posix(), reason))
            continue
        if kind == "sql":
            try:
                shown = _shown(file, root).replace("%", "%25").replace("?", "%3F")
                yield from [*_tables(f"sqlite:///{shown}", root)]
            except Unavailable as error:
                found.skipped.append((file.relative_to(folder).as_posix(), error.fact))
            continue
        looked[kind] = looked.get(kind, 0) + 1
        mapped = _map(file, kind, reader) if kind not in PAGES or looked[kind] <= LOOKS else None
        alike = groups.setdefault(file.suffix, [])
        before = next((each.map for each in alike if each.kind == kind), ())
        alike.append(_File(file, kind, before if mapped is None else tuple(mapped.items())))
    for suffix, alike in sorted(groups.items()):
        yield from _grouped(suffix, alike, path, root)


def _grouped(suffix: str, alike: Sequence[_File], path: Path, root: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """One source for all files of one suffix where they are alike, else one for each."""
    first = alike[0]
    maps = {each.map for each in alike if each.map}
    same = {each.kind for each in alike} == {first.kind}
    # A pattern without a suffix would take the whole folder. Pages without a heading do not make those with one
    # another source: most of a map decides.
    if (
        suffix
        and path.is_dir()
        and same
        and (len({each.map for each in alike}) == 1 or (first.kind in PAGES and len(maps) == 1))
    ):
        nested = any(each.path.parent != path for each in alike)
        pattern = f"{glob.escape(_shown(path, root))}/{'**/' if nested else ''}*{glob.escape(suffix)}"
        yield _table(first.kind, pattern, max(maps, default=()), suffix.strip(".")), len(alike)
        return
    for each in alike:
        yield _table(each.kind, glob.escape(_shown(each.path, root)), each.map, each.path.stem), 1


def _table(kind: str, path: str, mapped: tuple[tuple[str, str], ...], title: str) -> dict[str, Any]:
    return {"title": title, "kind": kind, "path": path, **({"map": dict(mapped)} if mapped else {})}


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        hidden = any(part.startswith(".") or OWN.fullmatch(part) for part in parts)
        if not hidden and not file.is_symlink() and file.is_file():
            yield file


def _map(file: Path, kind: str, reader: Reader) -> dict[str, str]:
    """What the first rows of a file say of its columns."""
    if kind not in PARSERS or file.stat().st_size > LARGEST:
        return {}
    return map_of(peek(reader, file, kind)[:ROWS])


def _at_url(url: str, root: Path) -> Iterator[tuple[dict[str, Any], int]]:
    _no_password(url)
    if url.partition("://")[0] in STORES:
        raise Invalid(f"the files at '{url}' are not looked into", "write it as path = … in noria.toml, with its kind")
    if not url.startswith(("http://", "https://")):
        yield from _tables(url, root)
    elif "crawl" in SourceSettings.model_fields:
        yield {"kind": "html", "url": url, "map": {"question": "heading", "answer": "body"}}, 1
    else:
        raise Invalid(f"'{url}' cannot be read by this version", "fetch its pages into a folder, and add that")


def _no_password(url: str) -> None:
    """Raises Invalid, which does not tell it, for an address with a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # What it says may hold the password.
        raise Invalid("the address cannot be read", "write it as postgresql+psycopg://user@host/name") from None
    if parts.password or any(key.lower() in sql.SECRETS for key in parse_qs(parts.query, keep_blank_values=True)):
        raise _holds_password()


def _holds_password() -> Invalid:
    return Invalid("the address holds a password", "noria.toml is no place for it; PostgreSQL reads ~/.pgpass")


def _tables(url: str, root: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """One source for each table of a database."""
    import sqlalchemy as sa

    try:
        if sa.engine.make_url(url).password:
            raise _holds_password()
        address, _ = sql.address_of(url, root, "")
        engine = sa.create_engine(address, poolclass=sa.NullPool)
        with engine.connect() as connection:
            quote = engine.dialect.identifier_preparer.quote
            for table in sa.inspect(connection).get_table_names():
                columns = [column["name"] for column in sa.inspect(connection).get_columns(table)]
                listed = ", ".join(map(quote, columns))
                mapped = map_of([dict.fromkeys(columns, "filled")])
                # S608: names come from the database's own catalogue and are quoted by its dialect.
                query = f"select {listed} from {quote(table)}"  # noqa: S608
                found = {"title": table, "kind": "sql", "url": url, "query": query}
                yield {**found, **({"map": mapped} if mapped else {})}, 1
    except sa.exc.ArgumentError as error:
        raise Invalid(f"'{url}' is no address", "such as postgresql+psycopg://user@host/name") from error
    except (sa.exc.SQLAlchemyError, ModuleNotFoundError) as error:
        raise Unavailable(f"the database '{url}' cannot be opened: {error}", "check the address") from error


def _fresh(known: Sequence[SourceSettings], proposals: Sequence[Proposal]) -> list[Proposal]:
    there = {(source.path, source.url, source.query) for source in known}
    names = {source.name for source in known}
    fresh = []
    for each in proposals:
        key = (each.keys.get("path"), each.keys.get("url"), each.keys.get("query"))
        if key in there:
            continue
        there.add(key)
        free = (f"{each.name}{number}" for number in itertools.chain([""], itertools.count(2)))
        name = next(name for name in free if name not in names)
        names.add(name)
        fresh.append(Proposal({**each.keys, "name": name}, each.files))
    return fresh


def _with_sources(text: str, tables: Sequence[dict[str, Any]]) -> str:
    """The file with more sources, before its tasks where it has any."""
    written = "\n".join(
        ["[[sources]]\n" + "".join(f"{key} = {_toml(each)}\n" for key, each in t.items()) for t in tables]
    )
    at = re.search(r"^[ \t]*\[tasks\b", text, re.MULTILINE)
    if at is None:
        return f"{text.rstrip()}\n\n{written}"
    return f"{text[: at.start()].rstrip()}\n\n{written}\n{text[at.start() :]}"


def _in_task(text: str, task: str, names: Sequence[str], file: str) -> str:
    """The file with more names in the task's `sources`."""
    line = line_of(text, ("tasks", task, "sources"))
    start = sum(len(each) for each in text.splitlines(keepends=True)[: line - 1])
    opening = re.compile(r"[ \t]*sources\s*=\s*\[").match(text, start)
    end = _last(text, opening.end()) if opening else -1
    if opening is None or end < 0:
        listed = ", ".join(json.dumps(name) for name in names)
        raise Invalid(f"the sources of task '{task}' are not a list of their own line", f"add by hand: {listed}",
                      where=f"{file}:{line}")  # fmt: skip
    more = ", ".join(json.dumps(name) for name in names)
    # Behind the last name, so that comments and a comma at the end stay what they are.
    return f"{text[:end]}, {more}{text[end:]}" if end > opening.end() else f"{text[:end]}{more}{text[end:]}"


def _last(text: str, at: int) -> int:
    """Where the last string of the array that was opened before `at` ends, or `at`; -1 for an array without end."""
    end = at
    for token in re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|#[^\n]*|\]").finditer(text, at):
        if token[0] == "]":
            return end
        end = token.end() if token[0][0] != "#" else end
    return -1


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _stem(place: str) -> str:
    plain = place.split("?")[0].rstrip("/")
    return Path(plain.partition("://")[2] or Path(plain).resolve()).stem


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.casefold()).strip("-_")[:60] or "data"
