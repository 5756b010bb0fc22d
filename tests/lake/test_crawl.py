"""A crawl of a real server on loopback: what it visits, what it keeps, and how politely."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from small_project import Project

from noria.errors import Unavailable
from noria.lake.crawl import AGENT, Crawled, crawl, kept
from noria.settings import CrawlSettings


@dataclass
class Site:
    """What the server answers by path, and what it was asked."""

    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    slow: frozenset[str] = frozenset()

    def page(self, path: str, *links: str, text: str = "Text.", **headers: str) -> None:
        body = "".join(f'<a href="{link}">x</a>' for link in links)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (200, {"content-type": "text/html", **named}, f"<p>{text}</p>{body}".encode())

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked if path != "/robots.txt"]


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heads = {name.lower(): value for name, value in self.headers.items()}
            made.asked.append((self.path, heads))
            status, headers, data = made.answers.get(self.path, (404, {}, b""))
            tag, since = headers.get("etag"), headers.get("last-modified")
            if status == 200 and (
                (tag and heads.get("if-none-match") == tag) or (since and heads.get("if-modified-since") == since)
            ):
                status, data = 304, b""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            try:
                if self.path in made.slow:
                    for byte in data:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(0.05)
                else:
                    self.wfile.write(data)
            except OSError:
                pass

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def run(site: Site, folder: Path, path: str = "/docs/", **settings: float) -> Crawled:
    slept: list[float] = []
    return crawl(site.url + path, CrawlSettings(**{"rate": 100.0, **settings}), folder, sleep=slept.append)


def texts(folder: Path) -> dict[str, bytes]:
    return {page.url.partition("/docs")[2]: file.read_bytes() for page, file in kept(folder)}


def test_pages_are_visited_breadth_first_and_once(site: Site, tmp_path: Path) -> None:
    site.page("/docs/", "a", "b#part", "/docs/b", "/other/", "http://elsewhere.example/", "mailto:a@b", "a?x=1")
    site.page("/docs/a", "deep/c", "./", "../docs/b")
    site.page("/docs/b", "a")
    site.page("/docs/deep/c", "/docs/a")
    found = run(site, tmp_path)
    assert site.paths == ["/docs/", "/docs/a", "/docs/b", "/docs/a?x=1", "/docs/deep/c"]
    assert {heads["user-agent"] for _, heads in site.asked} == {AGENT}
    assert texts(tmp_path).keys() == {"/", "/a", "/b", "/deep/c"}
    assert list(found.left_out.values()) == ["it answers 404"]


def test_robots_are_obeyed_longest_rule_first(site: Site, tmp_path: Path) -> None:
    rules = b"User-agent: *\nDisallow: /docs/private\nAllow: /docs/private/open\nDisallow: /*.pdf$\nCrawl-delay: 7\n"
    site.answers["/robots.txt"] = (200, {"content-type": "text/plain"}, rules)
    site.page("/docs/", "private/x", "private/open", "a.pdf", "b")
    site.page("/docs/private/open")
    site.page("/docs/b")
    slept: list[float] = []
    found = crawl(f"{site.url}/docs/", CrawlSettings(), tmp_path, sleep=slept.append)
    assert site.paths == ["/docs/", "/docs/private/open", "/docs/b"]
    assert list(found.left_out.values()) == ["robots.txt forbids it"] * 2
    assert len(slept) == 3
    assert all(pause > 5 for pause in slept)


def test_a_site_that_forbids_all_or_fails_is_not_read(site: Site, tmp_path: Path) -> None:
    site.page("/docs/")
    site.answers["/robots.txt"] = (200, {}, b"User-agent: noria\nDisallow: /\n")
    with pytest.raises(Unavailable, match=r"robots\.txt forbids it"):
        run(site, tmp_path)
    site.answers["/robots.txt"] = (503, {}, b"")
    with pytest.raises(Unavailable, match="answers 503"):
        run(site, tmp_path)
    assert site.paths == []
    with pytest.raises(Unavailable, match="does not answer"):
        crawl("http://127.0.0.1:9/", CrawlSettings(), tmp_path, sleep=lambda _: None)


def test_redirects_stay_on_the_site_and_end(site: Site, tmp_path: Path) -> None:
    site.page("/docs/", "moved", "away", "loop", "out")
    site.page("/docs/new")
    site.page("/else")
    for path, target in {
        "moved": "new",
        "away": "http://localhost:1/x",
        "loop": "loop2",
        "loop2": "loop",
        "out": "/else",
    }.items():
        site.answers[f"/docs/{path}"] = (302, {"location": target}, b"")
    found = run(site, tmp_path)
    assert texts(tmp_path).keys() == {"/", "/new"}
    assert sorted(why.partition(",")[0] for why in found.left_out.values()) == ["it leads off the site"] * 2
    assert len(site.paths) == len(set(site.paths)) == 7


def test_what_is_unchanged_is_not_sent_again_and_what_is_gone_goes(site: Site, tmp_path: Path) -> None:
    site.page("/docs/", "a", "b", "c", etag='"1"')
    site.page("/docs/a", "d", last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    site.page("/docs/b", text="old")
    site.page("/docs/c")
    site.page("/docs/d")
    assert run(site, tmp_path).unchanged == 0
    before = texts(tmp_path)
    site.page("/docs/b", text="new")
    del site.answers["/docs/c"]
    site.answers["/docs/d"] = (500, {}, b"")
    site.asked.clear()
    found = run(site, tmp_path)
    assert found.unchanged == 2
    conditions = {path: heads.get("if-none-match") or heads.get("if-modified-since") for path, heads in site.asked}
    assert conditions["/docs/"] == '"1"'
    assert conditions["/docs/a"] == "Mon, 01 Jan 2024 00:00:00 GMT"
    after = texts(tmp_path)
    assert after.keys() == {"/", "/a", "/b", "/d"}
    assert (after["/b"], after["/a"], after["/d"]) != (before["/b"], before["/a"], before["/d"])
    assert (after["/a"], after["/d"]) == (before["/a"], before["/d"])
    assert len(list((tmp_path / "pages").iterdir())) == len({*after.values()})


def test_a_site_that_is_down_keeps_its_pages(site: Site, tmp_path: Path) -> None:
    site.page("/docs/", "a")
    site.page("/docs/a")
    run(site, tmp_path)
    site.answers["/robots.txt"] = (503, {}, b"")
    assert len(run(site, tmp_path).pages) == 2
    assert texts(tmp_path).keys() == {"/", "/a"}


def test_sizes_types_and_times_have_limits(site: Site, tmp_path: Path) -> None:
    site.page("/docs/", "huge", "drip", "pic", "note", "manual", "last")
    site.page("/docs/huge", text="x" * 50_000)
    site.page("/docs/drip", text="y" * 200)
    site.page("/docs/last")
    site.slow = frozenset({"/docs/drip"})
    site.answers["/docs/pic"] = (200, {"content-type": "image/png"}, b"\x89PNG")
    site.answers["/docs/note"] = (200, {"content-type": "text/plain; charset=utf-8"}, b"A note.")
    site.answers["/docs/manual"] = (200, {"content-type": "application/pdf"}, b"%PDF-1.4")
    found = run(site, tmp_path, page_mb=0.02, timeout_s=0.5)
    why = {url.rpartition("/")[2]: reason for url, reason in found.left_out.items()}
    assert why["huge"] == "it is larger than allowed"
    assert why["pic"] == "it is image/png"
    assert "no whole page within 0.5 seconds" in why["drip"]
    assert {page.url.rpartition("/")[2]: page.kind for page in found.pages} == {
        "": "html", "note": "text", "manual": "pdf", "last": "html",
    }  # fmt: skip


def test_pages_and_bytes_of_a_crawl_are_bounded(site: Site, tmp_path: Path) -> None:
    for number in range(20):
        site.page(f"/docs/{number or ''}", str(number + 1), text="z" * 1000)
    assert len(run(site, tmp_path / "a", pages=5).pages) == 5
    assert len(run(site, tmp_path / "b", total_mb=0.003).pages) == 3
    found = run(site, tmp_path / "c", pages=5)
    assert list(found.left_out.values()) == ["past the limit of the crawl"]


def test_links_that_say_so_are_not_followed(site: Site, tmp_path: Path) -> None:
    site.answers["/docs/"] = (
        200,
        {"content-type": "text/html"},
        b'<base href="/docs/x/"><a rel="nofollow" href="a">a</a><a href="b">b</a><a href="http://[">?</a>',
    )
    site.answers["/docs/x/b"] = (
        200, {"content-type": "text/html"}, b'<meta name="robots" content="noindex, NoFollow"><a href="c">c</a>',
    )  # fmt: skip
    run(site, tmp_path)
    assert site.paths == ["/docs/", "/docs/x/b"]


def test_a_site_is_a_source(site: Site, tmp_path: Path) -> None:
    """What a cycle observed is what it reads: the site is asked once for both."""
    site.answers["/docs/"] = (
        200, {"content-type": "text/html"}, b'<h1>Pay?</h1><p>By card. <a href="note">More</a></p>',
    )  # fmt: skip
    site.answers["/docs/note"] = (200, {"content-type": "text/plain"}, b"A note.\n\nTwo.")
    project = Project(tmp_path, f'kind = "html"\nurl = "{site.url}/docs/"\ncrawl = {{ rate = 50 }}')
    rows = project.run()["documents"]
    assert {(row["file"], row["text"]) for row in rows} == {
        (f"{site.url}/docs/", "Pay?\nBy card. More"),
        (f"{site.url}/docs/note", "A note."),
        (f"{site.url}/docs/note", "Two."),
    }
    assert site.paths == ["/docs/", "/docs/note"]
    before = project.observed()
    site.answers["/docs/note"] = (200, {"content-type": "text/plain"}, b"Changed.")
    assert project.observed() != before
