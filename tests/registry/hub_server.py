"""A stand-in for the hub's HTTP API, on a thread: repositories in memory, plain git blobs and large file storage."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = (".safetensors", ".gguf", ".png")


@dataclass
class Repository:
    """`commits` are the files of each commit by its id; the last one is main."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if not self.commits:
            return "0" * 40, {}
        last = next(reversed(self.commits))
        sha = last if revision == "main" else revision
        return (sha, self.commits[sha]) if sha in self.commits else None


class Hub:
    """What the server holds. `token` is the only one that may write, and that may read what is private."""

    token = "hf_test"

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""
        self.broken: dict[str, bytes] = {}
        """Files that come out otherwise than they went in, by their names."""

    def put(self, name: str, files: dict[str, bytes], private: bool = False) -> None:
        here = self.repositories.setdefault(name, Repository(private))
        here.commits[hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()] = dict(files)


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._resolve(body=False)

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/api/models/([^/]+/[^/?]+)(?:/revision/([^/?]+))?(?:\?.*)?", self.path):
            self._info(found[1], found[2] or "main")
        else:
            self._resolve(body=True)

    def do_PUT(self) -> None:
        data = self._body()
        digest = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == digest
        self.hub.objects[digest] = data
        self._send(200, {})

    def do_POST(self) -> None:
        self.hub.asked.append(self.path)
        data = self._body()
        if self.path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(data))
            return
        if self.headers.get("authorization") != f"Bearer {self.hub.token}":
            self._send(401, {"error": "Invalid token"})
        elif self.path == "/api/validate-yaml":
            assert json.loads(data)["content"].startswith("---\n")
            self._send(200, {"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            self._create(json.loads(data))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/[^/?]+.*", self.path):
            modes = [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                 "shouldIgnore": False, "oid": None}
                for each in json.loads(data)["files"]
            ]  # fmt: skip
            self._send(200, {"files": modes})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/?]+.*", self.path):
            self._commit(found[1], [json.loads(line) for line in data.splitlines() if line])
        else:
            self._send(404, {"error": self.path})

    def _create(self, told: dict[str, Any]) -> None:
        name = f"{told['organization']}/{told['name']}"
        if name in self.hub.repositories:
            self._send(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
            return
        self.hub.repositories[name] = Repository(told.get("visibility") == "private")
        self._send(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def _batch(self, told: dict[str, Any]) -> None:
        objects = [
            {"oid": each["oid"], "size": each["size"], "authenticated": True,
             "actions": {"upload": {"href": f"{self.hub.url}/upload/{each['oid']}", "header": {}}}}
            for each in told["objects"]
        ]  # fmt: skip
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        here = self.hub.repositories[name]
        _, files = here.files("main") or ("", {})
        files = dict(files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        self.hub.put(name, files)
        sha = next(reversed(here.commits))
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def _readable(self, name: str) -> Repository | None:
        here = self.hub.repositories.get(name)
        if here is not None and here.private and self.headers.get("authorization") != f"Bearer {self.hub.token}":
            return None
        return here

    def _info(self, name: str, revision: str) -> None:
        here = self._readable(name)
        found = here.files(revision) if here else None
        if found is None:
            code = "RepoNotFound" if here is None else "RevisionNotFound"
            self._send(404, {"error": "not found"}, {"X-Error-Code": code})
            return
        sha, files = found
        siblings = [
            {"rfilename": path, "size": len(data), "blobId": "x", **_lfs(path, data)} for path, data in files.items()
        ]
        self._send(200, {"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []})

    def _resolve(self, *, body: bool) -> None:
        self.hub.asked.append(self.path)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        here = self._readable(found[1]) if found else None
        files = here.files(found[2]) if here and found else None
        if found is None or files is None or found[3] not in files[1]:
            code = "RepoNotFound" if here is None else "EntryNotFound"
            self._send(404, {"error": "not found"}, {"X-Error-Code": code}, empty=not body)
            return
        data = self.hub.broken.get(found[3], files[1][found[3]])
        tag = hashlib.sha256(files[1][found[3]]).hexdigest()
        self.send_response(200)
        for name, value in (("ETag", f'"{tag}"'), ("X-Repo-Commit", files[0]), ("Content-Length", str(len(data)))):
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None, empty: bool = False) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)),
                            **(headers or {})}.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if not empty:
            self.wfile.write(data)


def _lfs(path: str, data: bytes) -> dict[str, Any]:
    if not path.endswith(LARGE):
        return {}
    return {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
