"""How each server of the benchmark is started: one worker on one core, in front of the mock."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noria.settings import GatewaySettings, LimitSettings, PriceSettings, TaskSettings
from noria.types import Arm, Endpoint, KeyGrant, Route, Snapshot

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path.home() / ".cache" / "noria" / "peers"
KEY = "sk-bench-key"
MODES = ("", "-paced", "-long", "-flood")
"""What follows a model's name and tells the mock how to stream."""
START_SECONDS = 120.0
PLENTY = 10**12


@dataclass(frozen=True)
class Place:
    """Where a server runs: its folder, its port, the mock's port, and the core it is bound to."""

    folder: Path
    port: int
    upstream: int
    core: int


@dataclass(frozen=True)
class Kind:
    """One server that can be measured; `command` writes its configuration and gives its command line.

    `model` is the name that clients ask for. `without` are phases that are not run: an open-ended wait for a server
    that cannot keep up. `packages` go into an environment of its own, `probe` is the path that answers once it is up.
    """

    name: str
    command: Callable[[Place], list[str]]
    model: str = "mock"
    without: str = ""
    packages: tuple[str, ...] = ()
    probe: str = "/health"
    environment: dict[str, str] = field(default_factory=dict)
    version: Callable[[], str] = lambda: ""
    records: Callable[[Path], int] | None = None
    """How many requests it has on its disk."""


class Server:
    """A started server, alone in its process group."""

    def __init__(self, kind: Kind, place: Place) -> None:
        """Start it and wait until it answers; raises RuntimeError with its log."""
        self.kind = kind
        self.port = place.port
        self._log = place.folder / "log"
        place.folder.mkdir(parents=True)
        command = ["taskset", "-c", str(place.core), *kind.command(place)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, process_group=0, cwd=ROOT, env={**os.environ, **kind.environment}
            )
        end = time.monotonic() + START_SECONDS
        while not self._answers(kind.probe):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{kind.name} did not start: {self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    @property
    def group(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(3)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.process.wait()

    def _answers(self, path: str) -> bool:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"authorization": f"Bearer {KEY}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def nginx(place: Place) -> list[str]:
    user = "user root;" if os.getuid() == 0 else ""
    paths = " ".join(
        f"{name}_temp_path {place.folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = place.folder / "nginx.conf"
    file.write_text(f"""
{user} worker_processes 1; daemon off; pid {place.folder}/pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off; {paths}
  upstream m {{ server 127.0.0.1:{place.upstream}; keepalive 1024; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{place.port} backlog=4096; keepalive_requests 10000000;
    client_body_buffer_size 128k; client_max_body_size 64m;
    location / {{
      proxy_pass http://m; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
""")
    return [nginx_path() or "nginx", "-e", "stderr", "-p", str(place.folder), "-c", str(file)]


def nginx_path() -> str | None:
    """The program; outside of a user's search path where Debian puts it."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def nginx_version() -> str:
    program = nginx_path()
    if program is None:
        return ""
    return subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr.strip().split("/")[-1]


def noria(place: Place) -> list[str]:
    """Everything on: limits of every kind for the key and for the task, two arms, prices, records with both texts."""
    limits = LimitSettings(
        requests_per_minute=PLENTY, tokens_per_minute=PLENTY, streams=60_000, tokens_per_day=PLENTY, cost_per_day=PLENTY
    )
    table = limits.model_dump(mode="json")
    price = PriceSettings(prompt=0.1, completion=0.4)
    routes = {}
    for mode in MODES:
        task = TaskSettings(
            sources=("faq",), base="mock", engine="local", system="You answer customers' questions.", limits=limits
        )
        arms = (_arm(place, mode, "champion", 0.95, price), _arm(place, mode, "control", 0.05, price))
        routes[f"desk{mode}"] = Route(arms=arms, task=task.model_dump(mode="json"))
    grant = KeyGrant(id="k1", name="bench", role="user", limits=table)
    return _noria(place, routes, grant, GatewaySettings(limits=limits))


def noria_bare(place: Place) -> list[str]:
    """Keys, records and metrics only: a base model's route with one arm, no limits."""
    routes = {f"desk{mode}": Route(arms=(_arm(place, mode, "champion", 1.0, PriceSettings()),)) for mode in MODES}
    return _noria(place, routes, KeyGrant(id="k1", name="bench", role="developer"), GatewaySettings())


def _arm(place: Place, mode: str, name: str, share: float, price: PriceSettings) -> Arm:
    endpoint = Endpoint(url=f"http://127.0.0.1:{place.upstream}/v1", key="none", model=f"mock{mode}")
    return Arm(
        name=name, share=share, served_by=f"candidate:desk@{len(name):016x}", engine="local", upstreams=(endpoint,),
        price=(price.prompt, price.completion),
    )  # fmt: skip


def noria_records(folder: Path) -> int:
    """The interactions in the segments of a gateway that has ended."""
    count = 0
    for file in sorted((folder / "segments").glob("*.jsonl")):
        with file.open("rb") as lines:
            count += sum(b'"kind":"interaction"' in line for line in lines)
    return count


def _noria(place: Place, routes: dict[str, Route], grant: KeyGrant, rules: GatewaySettings) -> list[str]:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    snapshot = Snapshot(version=1, routes=routes, keys={digest: grant}, gateway=rules.model_dump(mode="json"))
    (place.folder / "snapshot.json").write_text(snapshot.model_dump_json())
    return [sys.executable, "-m", "noria.apps.gateway", "--state", str(place.folder), "--port", str(place.port)]


def router(program: str, *words: str) -> Callable[[Place], list[str]]:
    """vllm-router and smg take the same options."""

    def command(place: Place) -> list[str]:
        return [
            str(PEERS / program / "bin" / program), *words, "--host", "127.0.0.1", "--port", str(place.port),
            "--worker-urls", f"http://127.0.0.1:{place.upstream}", "--policy", "round_robin",
            "--prometheus-port", str(free_port()), "--prometheus-host", "127.0.0.1", "--log-level", "error",
        ]  # fmt: skip

    return command


def litellm(place: Place) -> list[str]:
    upstream = f"http://127.0.0.1:{place.upstream}/v1"
    models = [
        {
            "model_name": f"mock{mode}",
            "litellm_params": {
                "model": f"hosted_vllm/mock{mode}", "api_base": upstream, "api_key": "none",
            },
        }
        for mode in MODES
    ]  # fmt: skip
    config: dict[str, Any] = {
        "model_list": models,
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": KEY, "disable_spend_logs": True},
    }
    # JSON is YAML.
    file = place.folder / "config.yaml"
    file.write_text(json.dumps(config))
    program = str(PEERS / "litellm" / "bin" / "litellm")
    return [program, "--host", "127.0.0.1", "--port", str(place.port), "--config", str(file), "--run_granian"]


def installed(name: str) -> Callable[[], str]:
    """The version of a peer in its own environment, empty where it is not installed."""

    def version() -> str:
        python = PEERS / name / "bin" / "python"
        if not python.exists():
            return ""
        code = f"import importlib.metadata as m; print(m.version('{name}'))"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()

    return version


def install(kind: Kind) -> None:
    """Make the environment of a peer; raises CalledProcessError with what pip said on the terminal."""
    folder = PEERS / kind.name
    if kind.version():
        return
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "-q", *kind.packages], check=True)


def noria_version() -> str:
    import noria as package

    return str(package.__version__)


_LITELLM = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
KINDS = (
    Kind("nginx", nginx, probe="/", version=nginx_version),
    Kind("noria", noria, model="desk", version=noria_version, records=noria_records),
    Kind("noria-bare", noria_bare, model="desk", version=noria_version, records=noria_records),
    Kind("vllm-router", router("vllm-router"), packages=("vllm-router",), version=installed("vllm-router")),
    Kind("smg", router("smg", "launch"), packages=("smg",), version=installed("smg")),
    Kind(
        "litellm", litellm, without="FGS", packages=("litellm[proxy]", "granian"), probe="/health/liveliness",
        environment=_LITELLM, version=installed("litellm"),
    ),
)  # fmt: skip
