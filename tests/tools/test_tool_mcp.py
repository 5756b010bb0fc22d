"""MCP: a real server in a child process as a source of tools, and noria's own read functions behind a real client."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from noria.backends import mcp_client
from noria.errors import Unavailable
from noria.settings import bare_environment
from noria.wiring import open_project

SERVER = """
import os
import time
from mcp.server.mcpserver import MCPServer

server = MCPServer("shop", log_level="CRITICAL")

@server.tool()
def stock(item: str) -> str:
    '''How many of an item there are.'''
    return f"{item}: 7"

@server.tool()
def slow() -> str:
    '''Takes long.'''
    time.sleep(60)
    return ""

@server.tool()
def broken() -> str:
    '''Fails.'''
    raise ValueError("no shelf")

@server.tool()
def dies() -> str:
    '''Ends its server.'''
    os._exit(1)

server.run()
"""
READS = ["status", "why", "list_data", "show_data", "list_reports", "show_report"]
PROJECT = """
[project]
name = "small"
[engines.local]
kind = "llamacpp"
model = "smollm2-135m-instruct"
[[sources]]
name = "faq"
kind = "csv"
path = "faq.csv"
[tasks.helpdesk]
sources = ["faq"]
base = "smollm2-135m-instruct"
engine = "local"
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mcp_client.Server]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "server.py").write_text(SERVER)
    server = mcp_client.launched([sys.executable, "server.py"], folder, bare_environment(()))
    yield server
    server.close()


def test_a_launched_server_s_tools_are_called(shop: mcp_client.Server) -> None:
    assert [each.name for each in shop.specs()] == ["stock", "slow", "broken", "dies"]
    assert shop.specs()[0].description == "How many of an item there are."
    assert shop.call("stock", {"item": "nails"}, 10, 100).text == "nails: 7"
    assert shop.call("stock", {}, 10, 100).outcome == "failed"
    assert shop.call("broken", {}, 10, 100).outcome == "failed"
    assert shop.call("nothing", {}, 10, 100).outcome == "failed"


def test_one_that_does_not_answer_in_time_is_started_again(shop: mcp_client.Server) -> None:
    assert shop.call("slow", {}, 0.5, 100).outcome == "late"
    assert shop.call("stock", {"item": "nails"}, 20, 100).text == "nails: 7"


def test_one_that_dies_is_started_again(shop: mcp_client.Server) -> None:
    assert shop.call("dies", {}, 10, 100).outcome == "failed"
    assert shop.call("stock", {"item": "nails"}, 20, 100).text == "nails: 7"


def test_a_server_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        mcp_client.launched([str(tmp_path / "none")], tmp_path, {})


def test_noria_s_own_functions_are_read_through_mcp(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text(PROJECT)
    command = [sys.executable, "-m", "noria", "mcp", "--project", str(tmp_path)]
    environment = {**bare_environment(()), "PYTHONPATH": os.pathsep.join(sys.path)}
    noria = mcp_client.launched(command, Path.cwd(), environment)
    try:
        assert [each.name for each in noria.specs()] == READS
        status = json.loads(noria.call("status", {}, 30, 10_000).text)
        assert (status["project"], [*status["tasks"]]) == ("small", ["helpdesk"])
        assert json.loads(noria.call("list_data", {}, 30, 100).text) == []
        why = noria.call("why", {"answer": "none"}, 30, 100)
        assert (why.outcome, "there is no answer 'none'" in why.text) == ("failed", True)
        assert noria.call("why", {"answer": 1}, 30, 100).outcome == "failed"
    finally:
        noria.close()


def test_over_http_it_wants_a_key(tmp_path: Path) -> None:
    import threading

    import httpx
    import uvicorn

    from noria.apps import access, mcp_tools, port
    from noria.backends import mcp_server

    (tmp_path / "noria.toml").write_text(PROJECT)
    platform = open_project(tmp_path)
    key = access.admin_key(platform)
    listener = port.listen("127.0.0.1", 0)
    app = mcp_tools.guarded(platform, mcp_server.app(mcp_tools.reading(platform), "noria", mcp_tools.ABOUT))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        url = f"{port.url_of(listener)}/mcp"
        assert httpx.post(url, json={}, trust_env=False).status_code == 401
        assert httpx.post(url, json={}, headers={"authorization": "Bearer x"}, trust_env=False).status_code == 401
        with pytest.raises(Unavailable):
            mcp_client.attached(url, "wrong")
        noria = mcp_client.attached(url, key)
        assert json.loads(noria.call("status", {}, 30, 10_000).text)["project"] == "small"
        noria.close()
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
