"""`noria features`: the feature store. Rows as they were, for training; rows as they are, for serving."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened

group = typer.Typer(
    no_args_is_help=True,
    help="The feature store: token ids, masks and metadata of examples.\n\nExample: noria features materialize",
)

Ids = Annotated[list[str], typer.Argument(help="Ids of rows.", metavar="ID…")]


@group.command("show")
def show_view(task: Task = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """The feature view of a task: its fields, its version by tokenizer and prompt, and how much there is.

    Example: noria features show
    """
    from noria.apps import featuring

    _told(featuring.show(opened(project), task), as_json)


@group.command("get")
def get_rows(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of rows; with --at, all without one.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="As it was at this time, from the history.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="With --at: write Parquet instead of showing.")] = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Rows as they serve now, or as they were at a time: a training set without a look into the future.

    Example: noria features get 123            Example: noria features get --at 2026-01-31 --out january.parquet
    """
    from noria.apps import featuring
    from noria.apps.screen import show, table_of
    from noria.errors import Invalid

    when = featuring.moment(at, "--at")
    if when is None and (out is not None or not ids):
        raise Invalid("nothing is asked for", "name ids, or a time: --at 2026-01-31")
    if when is None:
        rows = featuring.online(opened(project), task, ids or [])
    else:
        told = featuring.past(opened(project), task, ids or [], when, out)
        if as_json or out is not None:
            _told(told, as_json)
            return
        rows = told["features"]
    if as_json:
        show(rows, as_json=True)
        return
    names = ["input_id", "n_tokens", "token_ids", "meta"]
    show(None, False, table_of(names, [[str(row[name])[:80] for name in names] for row in rows]))


@group.command("materialize")
def materialize_rows(
    since: Annotated[str | None, typer.Option(help="Only rows that hold from this time on.")] = None,
    until: Annotated[str | None, typer.Option(help="Rows as they were at this time; now without it.")] = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Put the features of all cycles into the history, and the latest row of each id online.

    Example: noria features materialize
    """
    from noria.apps import featuring

    times = (featuring.moment(since, "--since"), featuring.moment(until, "--until"))
    _told(featuring.materialize(opened(project), task, *times), as_json)


@group.command("push")
def push_rows(
    file: Annotated[Path, typer.Argument(help="Rows as JSON, columns as JSON, or JSON lines; - reads standard input.")],
    keep: Annotated[bool, typer.Option("--history", help="Keep them in the history too, for training.")] = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Bring fresh rows online at once, without a cycle.

    Example: noria features push rows.json --history
    """
    from noria.apps import featuring

    _told(featuring.push(opened(project), task, file, keep), as_json)


@group.command("remove")
def remove_rows(ids: Ids, task: Task = None, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Take rows out of the history of every version and out of the online store.

    Example: noria features remove 123 124
    """
    from noria.apps import featuring

    _told(featuring.remove(opened(project), task, ids), as_json)


@group.command("retrieve")
def retrieve_documents(
    question: Annotated[str, typer.Argument(help="What a customer would ask.")],
    k: Annotated[int | None, typer.Option("--k", min=1, max=100, help="How many; else as many as are served.")] = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """The documents that stand beside a question, nearest first: by words or by meaning, as the task says.

    Example: noria features retrieve "I cannot log in" --k 3
    """
    from noria.apps import featuring
    from noria.apps.screen import show, table_of

    found = featuring.retrieve(opened(project), task, question, k)
    show(found, as_json, table_of(["document", "text"], [[each["document"], each["text"][:160]] for each in found]))


@group.command("encode")
def encode_text(
    text: Annotated[str, typer.Argument(help="Any text.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(help="A tokenizer.json, its folder, or bert-base-uncased; else that of the task's base."),
    ] = None,
    length: Annotated[int, typer.Option(min=0, help="Cut or fill up to so many tokens.")] = 0,
    identity: Annotated[str | None, typer.Option("--id", help="Give a row for `noria features push`.")] = None,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Token ids and attention mask of a text.

    Example: noria features encode "How can I reset my password?" --tokenizer bert-base-uncased --length 512
    """
    from noria.apps import featuring

    told = featuring.encode(opened(project), task, text, tokenizer, length)
    if identity is not None:
        told = {"input_id": identity, "token_ids": told["token_ids"], "attention_mask": told["attention_mask"]}
    _told(told, as_json or identity is not None)


def _told(told: dict[str, Any], as_json: bool) -> None:
    from noria.apps.screen import show, table_of

    table = table_of(["", ""], [[key, str(value)[:120]] for key, value in told.items()])
    show(told, as_json, table)
