"""The gateway beside nginx and its peers, in front of one mock engine, on one core each.

`make bench-gateway`, or `python benchmarks/gateway/run.py --only A --servers nginx,noria --rounds 1` for a quick look.
Servers take turns round by round, in the opposite order every other round. Compare ratios of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import report
import servers
from phases import PHASES, Bench, Phase, Target
from servers import KEY, KINDS, ROOT, Kind, Place, Server

Results = dict[str, dict[str, list[dict[str, Any]]]]
"""By server and phase: one set of figures a round."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    kinds = _present(options)
    phases = [phase for phase in PHASES if not options.only or phase.letter in options.only]
    cores = sorted(os.sched_getaffinity(0))
    gateway, rest = cores[0], cores[min(1, len(cores) - 1)]
    os.sched_setaffinity(0, {rest})
    with tempfile.TemporaryDirectory(prefix="bench-gateway-", dir=build) as name:
        folder = Path(name)
        mock, load = (_compiled(each, folder) for each in ("mock", "load"))
        upstream = servers.free_port()
        engine = subprocess.Popen([mock, str(upstream)], process_group=0)
        try:
            _await(upstream)
            bench = Bench(load, folder, upstream)
            direct = Target(upstream, engine.pid, "mock", KEY) if "direct" in options.servers else None
            results = _rounds(
                options.rounds, kinds, phases, bench, direct, lambda n: _place(folder, n, upstream, gateway)
            )
        finally:
            engine.kill()
            engine.wait()
    found = report.summary(results)
    setting = {
        "rounds": options.rounds,
        "phases": {phase.letter: phase.title for phase in phases},
        "versions": {kind.name: kind.version() for kind in kinds},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.release()}, Python {platform.python_version()}",
        "cores": {"gateway": gateway, "mock and load": rest},
    }
    checks = report.checks(found)
    options.out.write_text(json.dumps({**setting, "summary": found, "checks": checks, "rounds_raw": results}, indent=1))
    print(report.text(setting, found, checks))
    return 1 if report.void(found, ("direct", "nginx", "noria")) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = ["direct", *(kind.name for kind in KINDS)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"phases, such as AC; of {''.join(p.letter for p in PHASES)}")
    parser.add_argument("--servers", default=",".join(names), help=f"of {','.join(names)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--install-peers", action="store_true", help=f"make the peers' environments in {servers.PEERS}")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-gateway.json")
    options = parser.parse_args(arguments)
    options.servers = options.servers.split(",")
    if unknown := set(options.servers) - set(names):
        parser.error(f"unknown servers: {', '.join(sorted(unknown))}")
    return options


def _present(options: argparse.Namespace) -> list[Kind]:
    """The kinds that were asked for and are there; says which are left out."""
    found = []
    for kind in KINDS:
        if kind.name not in options.servers:
            continue
        if kind.packages and options.install_peers:
            servers.install(kind)
        if kind.version():
            found.append(kind)
        elif kind.packages:
            print(f"{kind.name} is left out: not installed; --install-peers installs it into {servers.PEERS}")
        else:
            sys.exit(f"{kind.name} is missing: apt-get install nginx-light")
    return found


def _compiled(name: str, folder: Path) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        sys.exit("gcc is missing: apt-get install gcc libc6-dev")
    source = Path(__file__).with_name(f"{name}.c")
    done = subprocess.run(
        [compiler, "-O2", "-Wall", "-o", folder / name, source], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"gcc could not compile {source.name} (apt-get install gcc libc6-dev):\n{done.stderr}")
    return folder / name


def _place(folder: Path, name: str, upstream: int, core: int) -> Place:
    return Place(folder / f"{name}-{time.monotonic_ns()}", servers.free_port(), upstream, core)


def _await(port: int) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=5).close()
            return
        except urllib.error.URLError:
            time.sleep(0.05)
    sys.exit("the mock does not answer")


def _rounds(
    rounds: int, kinds: Sequence[Kind], phases: Sequence[Phase], bench: Bench, direct: Target | None, place: Any
) -> Results:
    results: Results = {}
    for number in range(rounds):
        order: list[Kind | None] = [*([None] if direct else []), *kinds]
        for kind in order if number % 2 == 0 else reversed(order):
            name = kind.name if kind else "direct"
            figures = results.setdefault(name, {})
            began = time.monotonic()
            if kind is None:
                assert direct is not None
                _phases(bench, direct, phases, figures)
            else:
                server = Server(kind, here := place(kind.name))
                try:
                    chosen = [phase for phase in phases if phase.letter not in kind.without]
                    _phases(bench, Target(server.port, server.group, kind.model, KEY), chosen, figures)
                finally:
                    server.stop()
                    shutil.rmtree(here.folder)
            print(f"round {number + 1} of {rounds}: {name}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return results


def _phases(bench: Bench, target: Target, phases: Sequence[Phase], figures: dict[str, list[dict[str, Any]]]) -> None:
    for phase in phases:
        figures.setdefault(phase.letter, []).append(bench.measure(target, phase))


if __name__ == "__main__":
    sys.exit(main())
