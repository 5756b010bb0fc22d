"""A site's pages, gone through politely and kept in a folder, so that what is unchanged is not sent again."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urljoin, urlsplit, urlunsplit

from noria import __version__
from noria.errors import Unavailable
from noria.settings import CrawlSettings

if TYPE_CHECKING:
    import httpx
    from protego import Protego

AGENT = f"noria/{__version__}"
HOPS = 5
"""Redirects of robots.txt that are followed, as RFC 9309 asks."""

KINDS: Mapping[str, str] = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/plain": "text",
    "application/pdf": "pdf",
}
"""Content types that are read, and the kind of source that each is."""

_MEGABYTE = 1_000_000
_ROBOTS_BYTES = 500_000


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said: headers have lower-case names; `data` is None where it was longer than allowed."""

    status: int
    headers: Mapping[str, str]
    data: bytes | None


Fetch = Callable[[str, Mapping[str, str], int], Reply]
"""Asks for a URL with headers and a limit in bytes; follows no redirect; raises OSError where no answer comes."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page as it is kept: its kind of source, file and digest, and what lets a server say that it is the same."""

    url: str
    kind: str
    digest: str
    etag: str = ""
    modified: str = ""
    links: tuple[str, ...] = ()


@dataclass(slots=True)
class Crawled:
    """What became of a crawl: pages kept, how many were unchanged, and why others were left out."""

    pages: list[Page] = field(default_factory=list)
    unchanged: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a crawl may go: one scheme, host and port, below one folder."""

    start: str

    def holds(self, url: str) -> bool:
        """Whether a URL is of this site."""
        mine, other = urlsplit(self.start), urlsplit(url)
        folder = mine.path.rpartition("/")[0] + "/"
        same = (mine.scheme, mine.netloc.lower()) == (other.scheme, other.netloc.lower())
        return same and (other.path or "/").startswith(folder) and "/.." not in other.path

    @property
    def robots(self) -> str:
        """Address of its robots.txt."""
        return urljoin(self.start, "/robots.txt")


def crawl(
    url: str,
    settings: CrawlSettings,
    folder: Path,
    fetch: Fetch | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Crawled:
    """Go through a site breadth first from `url` and keep its pages in `folder`.

    robots.txt (RFC 9309) is obeyed, its crawl-delay too; pages that were kept before are asked for only if changed
    (RFC 9110, ETag and Last-Modified). Redirects off the site are refused. Pages that no longer answer are dropped
    from the folder, but kept where the server does not answer at all or fails.
    Raises Unavailable when the first page cannot be had.
    """
    start = _plain(url)
    if fetch is None:
        with _client(settings.timeout_s) as client:
            return crawl(url, settings, folder, _fetcher(client, settings.timeout_s), sleep)
    walk = _Walk(Site(start), settings, fetch, sleep, _Shelf(folder))
    walk.run(start)
    walk.shelf.save(walk.crawled.pages)
    return walk.crawled


def kept(folder: Path) -> Iterator[tuple[Page, Path]]:
    """The pages, with their files, of the last crawl in the order of their addresses; nothing before the first."""
    shelf = _Shelf(folder)
    for address in sorted(shelf.pages):
        page = shelf.pages[address]
        yield page, shelf.file(page.digest)


class _Shelf:
    """A folder of pages, named by content, and an index of them that is replaced in one rename."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = folder / "index.json"
        try:
            found = json.loads(self._index.read_text(encoding="utf-8"))
            pages = [Page(**{**page, "links": tuple(page["links"])}) for page in found]
        except (OSError, ValueError, TypeError, KeyError):
            pages = []
        self.pages = {page.url: page for page in pages if self.file(page.digest).is_file()}

    def file(self, digest: str) -> Path:
        """Where a page is kept."""
        return self._folder / "pages" / digest

    def keep(self, data: bytes) -> str:
        """Write a page; returns its SHA-256, which is its name."""
        digest = hashlib.sha256(data).hexdigest()
        file = self.file(digest)
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            new = file.with_suffix(".new")
            new.write_bytes(data)
            new.replace(file)
        return digest

    def save(self, pages: list[Page]) -> None:
        """Write the index, and forget pages that it does not name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._index.with_suffix(".new")
        new.write_text(json.dumps([asdict(page) for page in pages], indent=1), encoding="utf-8")
        new.replace(self._index)
        named = {page.digest for page in pages}
        for file in (self._folder / "pages").glob("*"):
            if file.name not in named:
                file.unlink()


class _Walk:
    """One crawl under way."""

    def __init__(
        self, site: Site, settings: CrawlSettings, fetch: Fetch, sleep: Callable[[float], None], shelf: _Shelf
    ) -> None:
        self.site, self.settings, self.shelf = site, settings, shelf
        self.crawled = Crawled()
        self._fetch, self._sleep = fetch, sleep
        self._next = 0.0
        self._pause = 1.0 / settings.rate
        self._left = int(settings.total_mb * _MEGABYTE)

    def run(self, start: str) -> None:
        """Visit pages until none, or no allowance, is left."""
        try:
            rules = self._rules()
        except Unavailable as error:
            if not self.shelf.pages:
                raise
            self.crawled.pages.extend(self.shelf.pages.values())
            self.crawled.left_out[self.site.robots] = error.fact
            return
        queue, seen, asked = deque([start]), {start}, 0
        while queue:
            if asked >= self.settings.pages or self._left <= 0:
                self.crawled.left_out.update(dict.fromkeys(queue, "past the limit of the crawl"))
                break
            address = queue.popleft()
            if rules is not None and not rules.can_fetch(address, AGENT):
                self._refuse(address, "robots.txt forbids it", start)
                continue
            asked += 1
            for link in self._visit(address, start, seen):
                if link not in seen:
                    seen.add(link)
                    queue.append(link)

    def _rules(self) -> Protego | None:
        """What robots.txt says; nothing where there is none. A server that fails allows nothing (RFC 9309, 2.3.1)."""
        from protego import Protego

        reply = self._ask(self.site.robots, {}, _ROBOTS_BYTES)
        for _ in range(HOPS):
            target = reply.headers.get("location", "") if 300 <= reply.status < 400 else ""
            if not target:
                break
            # A robots.txt may lie on another host, as for a site that moved from http to https.
            reply = self._ask(urljoin(self.site.robots, target), {}, _ROBOTS_BYTES)
        if reply.status >= 500 or reply.status == 429:
            raise Unavailable(f"'{self.site.robots}' answers {reply.status}: the site may not be read now", "try later")
        if reply.status >= 300:
            return None
        rules = Protego.parse((reply.data or b"").decode("utf-8", "replace"))
        delay = float(rules.crawl_delay(AGENT) or 0.0)
        if delay > self._pause:
            self._next += delay - self._pause
            self._pause = delay
        return rules

    def _ask(self, address: str, headers: Mapping[str, str], limit: int) -> Reply:
        """Ask for an address, not sooner than the rate allows."""
        wait = self._next - time.monotonic()
        if wait > 0:
            self._sleep(wait)
        self._next = max(time.monotonic(), self._next) + self._pause
        try:
            reply = self._fetch(address, headers, limit)
        except OSError as error:
            raise Unavailable(f"'{address}' does not answer: {error}", "check the url of the source") from error
        self._left -= len(reply.data or b"")
        return reply

    def _visit(self, address: str, start: str, seen: set[str]) -> tuple[str, ...]:
        """Take in one page; returns where it leads."""
        known = self.shelf.pages.get(address)
        try:
            reply = self._ask(address, _conditions(known), int(self.settings.page_mb * _MEGABYTE))
        except Unavailable as error:
            return self._failed(address, known, error.fact, start)
        if reply.status == 304 and known is not None:
            self.crawled.pages.append(known)
            self.crawled.unchanged += 1
            return known.links
        if 300 <= reply.status < 400:
            target = _plain(urljoin(address, reply.headers.get("location", "")))
            if not self.site.holds(target):
                self._refuse(address, f"it leads off the site, to '{target}'", start)
                return ()
            # The target counts as a page of its own, so that a loop ends where every page is visited once.
            if target in seen and address == start:
                self._refuse(address, "it leads to itself", start)
            return (target,)
        if reply.status >= 500 or reply.status == 429:
            return self._failed(address, known, f"it answers {reply.status}", start)
        if reply.status != 200:
            self._refuse(address, f"it answers {reply.status}", start)
            return ()
        return self._take(address, reply, known, start)

    def _take(self, address: str, reply: Reply, known: Page | None, start: str) -> tuple[str, ...]:
        kind = KINDS.get(reply.headers.get("content-type", "text/html").partition(";")[0].strip().lower())
        if kind is None or reply.data is None:
            why = "it is larger than allowed" if kind else f"it is {reply.headers.get('content-type')}"
            self._refuse(address, why, start)
            return ()
        links = tuple(link for link in _links(reply.data, address) if self.site.holds(link)) if kind == "html" else ()
        etag, modified = reply.headers.get("etag", ""), reply.headers.get("last-modified", "")
        page = Page(address, kind, self.shelf.keep(reply.data), etag, modified, links)
        self.crawled.pages.append(page)
        self.crawled.unchanged += known is not None and known.digest == page.digest
        return links

    def _failed(self, address: str, known: Page | None, why: str, start: str) -> tuple[str, ...]:
        """A server that fails for now does not make a page vanish that was there."""
        self._refuse(address, why, start)
        if known is not None:
            self.crawled.pages.append(known)
            return known.links
        return ()

    def _refuse(self, address: str, why: str, start: str) -> None:
        if address == start and start not in self.shelf.pages:
            raise Unavailable(f"nothing can be read at '{address}': {why}", "check the url of the source")
        self.crawled.left_out[address] = why


def _conditions(known: Page | None) -> dict[str, str]:
    if known is None:
        return {}
    found = {"if-none-match": known.etag, "if-modified-since": known.modified}
    return {name: value for name, value in found.items() if value}


def _plain(url: str) -> str:
    """A URL without fragment, with a path and with its host in lower case, so that one page has one name."""
    try:
        parts = urlsplit(urldefrag(url.strip())[0])
    except ValueError:
        return ""
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), parts.path or "/", parts.query, ""))


def _links(data: bytes, address: str) -> list[str]:
    """Where a page leads, in its order, each once; links that say `nofollow` do not count."""
    from selectolax.lexbor import LexborHTMLParser

    page = LexborHTMLParser(data)
    robots = page.css_first("meta[name=robots]")
    if robots is not None and "nofollow" in (robots.attributes.get("content") or "").lower():
        return []
    base = page.css_first("base[href]")
    root = urljoin(address, (base.attributes.get("href") or "") if base is not None else "")
    found: dict[str, None] = {}
    for node in page.css("a[href], area[href]"):
        if "nofollow" in (node.attributes.get("rel") or "").lower():
            continue
        try:
            found[_plain(urljoin(root, node.attributes.get("href") or ""))] = None
        except ValueError:
            continue
    return [link for link in found if link.startswith(("http://", "https://"))]


def _client(timeout: float) -> httpx.Client:
    import httpx

    return httpx.Client(headers={"user-agent": AGENT}, timeout=timeout, follow_redirects=False)


def _fetcher(client: httpx.Client, timeout: float) -> Fetch:
    """Fetches with a bound on size and on the whole time: a page that drips ends as one that does not answer."""
    import httpx

    def fetch(url: str, headers: Mapping[str, str], limit: int) -> Reply:
        until = time.monotonic() + timeout
        try:
            with client.stream("GET", url, headers=dict(headers)) as answer:
                found = {name.lower(): value for name, value in answer.headers.items()}
                data = bytearray()
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > limit:
                        return Reply(answer.status_code, found, None)
                    if time.monotonic() > until:
                        raise TimeoutError(f"no whole page within {timeout:g} seconds")
                return Reply(answer.status_code, found, bytes(data))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OSError(str(error) or type(error).__name__) from error

    return fetch
