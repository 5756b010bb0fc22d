"""`noria engines`: the processes that run models."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, opened

group = typer.Typer(
    no_args_is_help=True,
    help="Engines: list, start and stop them, read their logs.\n\nExample: noria engines list",
)

Name = Annotated[str, typer.Argument(help="Which engine; its table in noria.toml is [engines.NAME].", metavar="name")]


@group.command("list")
def list_engines(as_json: AsJson = False, project: Folder = HERE) -> None:
    """Every engine: its state, processes, memory, adapters, restarts and what went wrong last.

    Beside the memory stands what `noria fit` plans for one replica, and by how much that is off.

    Example: noria engines list            Example: noria engines list --json
    """
    from noria.apps import engines
    from noria.apps.screen import show, table_of

    found = engines.listed(opened(project))
    rows = [
        [each["name"], each["kind"], each["state"], f"{each['live']}/{each['replicas']}",
         " ".join(map(str, each["pids"])), " ".join(each["addresses"]),
         f"{each['memory'] / 2**20:.0f} MiB" if each["memory"] else "", _planned(each["plan"]),
         str(len(each["adapters"])), str(each["restarts"]), each["error"].partition("\n")[0]]
        for each in found
    ]  # fmt: skip
    head = [
        "engine", "kind", "state", "live", "pid", "address", "memory", "planned", "adapters", "restarts", "last error",
    ]  # fmt: skip
    show({"engines": found} if as_json else None, as_json, table_of(head, rows))
    if not as_json:
        for each in found:
            if each["alert"] is not None:
                typer.echo(f"ALERT {each['alert']['fact']}\n  try: {each['alert']['hint']}")


@group.command()
def start(name: Name, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Start an engine that was stopped, that crashed too often, or that no task uses.

    Where noria up does not run, this engine alone is started, with the adapters that its tasks have promoted, and
    looked after until Ctrl-C.

    Example: noria engines start local
    """
    from noria.apps import engines
    from noria.apps.screen import Screen, show
    from noria.errors import Unavailable

    platform = opened(project)
    if engines.control(platform) is None:
        with Screen() as screen:
            engines.Alone(platform, name, screen).run(lambda told: show(told if as_json else _said(told), as_json))
        return
    with Screen() as screen:
        told = engines.ordered(platform, "start", name, screen)
    if told["state"] == "failed" and not as_json:
        raise Unavailable(f"engine '{name}' did not start: {told['error']}", engines.log_hint(platform, name))
    show(told if as_json else f"engine '{name}' is {told['state']}", as_json)
    if told["state"] == "failed":
        raise typer.Exit(1)


@group.command()
def stop(name: Name, as_json: AsJson = False, project: Folder = HERE) -> None:
    """Stop an engine after the requests in flight. It stays stopped until `noria engines start`.

    Example: noria engines stop local
    """
    from noria.apps import engines
    from noria.apps.screen import Screen, show

    with Screen() as screen:
        told = engines.ordered(opened(project), "stop", name, screen)
    show(told if as_json else f"engine '{name}' is {told['state']}", as_json)


@group.command()
def logs(
    name: Name,
    lines: Annotated[int, typer.Option(min=1, help="How many of the last lines, of each replica.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")] = False,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """The end of an engine's log; of several replicas each line says which.

    Example: noria engines logs local --lines 20 --follow
    """
    from noria.apps import engines
    from noria.apps.screen import show

    platform = opened(project)
    if as_json:
        show(engines.logs(platform, name, lines), as_json=True)
        return
    for line in engines.told(platform, name, lines, follow):
        typer.echo(line)


def _planned(plan: dict[str, float] | None) -> str:
    """The memory plan of one replica and how far it is off; above 0 it said too much."""
    return "" if plan is None else f"{plan['planned'] / 2**20:.0f} MiB ({100 * plan['off']:+.1f} %)"


def _said(told: dict[str, Any]) -> str:
    """What a person needs to ask an engine that was started on its own."""
    lines = [f"{each['model']}  {each['url']}  key {each['key']}" for each in told["servers"]]
    for each in told["adapters"]:
        # A whole model has a server of its own, at which nothing need be named.
        first = each["servers"][0]
        lines.append(
            f"{each['adapter']}  {first['url']}  key {first['key']}  in a request {json.dumps(each['request'])}"
        )
    return "\n".join(lines)
