"""The gateway beside nginx and its peers, in front of one mock engine, on one core each.

`make bench-gateway`, or `python benchmarks/gateway/run.py --only A --servers nginx,noria --rounds 1` for a quick look.
Servers take turns round by round, in the opposite order every other round. Compare ratios of one run only.
"""

from __future__ import annotations

import argparse
import contextlib
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import report
import servers
from phases import PHASES, Bench, Phase, Target
from servers import KEY, KINDS, ROOT, Kind, Place, Server

Rounds = dict[str, list[dict[str, Any]]]
"""By phase: one set of figures a round."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a measurement of noria or of what it is compared with is void."""
    options = _options(arguments)
    kinds = _present(options)
    phases = [phase for phase in PHASES if not options.only or phase.letter in options.only]
    cores = sorted(os.sched_getaffinity(0))
    gateway, rest = cores[0], cores[min(1, len(cores) - 1)]
    # The mock and the load inherit it; servers are moved to their own core.
    os.sched_setaffinity(0, {rest})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-gateway-", dir=options.out.parent) as name:
        results = _measured(options, kinds, phases, Path(name), gateway)
    found = report.summary(results)
    checked = report.checks(found)
    setting = {
        "rounds": options.rounds,
        "phases": {phase.letter: phase.title for phase in phases},
        "versions": {kind.name: kind.version() for kind in kinds},
        "machine": f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "cores": {"gateway": gateway, "mock and load": rest},
    }
    whole = {**setting, "summary": found, "checks": report.plain(checked), "raw": results}
    options.out.write_text(json.dumps(whole, indent=1))
    print(report.text(setting, found, checked))
    return 1 if report.void(found, ("direct", "nginx", "noria")) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = ["direct", *(kind.name for kind in KINDS)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    letters = "; ".join(f"{phase.letter} {phase.title}" for phase in PHASES)
    parser.add_argument("--only", default="", help=f"phases, such as AC: {letters}")
    parser.add_argument("--servers", default=",".join(names), help=f"of {','.join(names)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--install-peers", action="store_true", help=f"make the peers' environments in {servers.PEERS}")
    parser.add_argument("--realtime", action="store_true", help="SCHED_RR in all phases, not in D only")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-gateway.json")
    options = parser.parse_args(arguments)
    options.servers = options.servers.split(",")
    if unknown := set(options.servers) - set(names):
        parser.error(f"unknown servers: {', '.join(sorted(unknown))}")
    if unknown := set(options.only) - {phase.letter for phase in PHASES}:
        parser.error(f"unknown phases: {', '.join(sorted(unknown))}")
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


def compiled(name: str, folder: Path) -> Path:
    """One of the C programs beside this file, built into a folder."""
    compiler = shutil.which("gcc")
    if compiler is None:
        sys.exit("gcc is missing: apt-get install gcc libc6-dev")
    source = Path(__file__).with_name(f"{name}.c")
    command = [compiler, "-O2", "-Wall", "-o", str(folder / name), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"gcc could not compile {source.name} (apt-get install gcc libc6-dev):\n{done.stderr}")
    return folder / name


@contextlib.contextmanager
def _mock(folder: Path) -> Iterator[Target]:
    port = servers.free_port()
    engine = subprocess.Popen([compiled("mock", folder), str(port)], process_group=0)
    try:
        for _ in range(100):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=5).close()
                break
            time.sleep(0.05)
        else:
            sys.exit("the mock does not answer")
        yield Target(port, engine.pid, "mock", KEY)
    finally:
        engine.kill()
        engine.wait()


def _measured(
    options: argparse.Namespace, kinds: Sequence[Kind], phases: Sequence[Phase], folder: Path, core: int
) -> dict[str, Rounds]:
    """The figures by server."""
    results: dict[str, Rounds] = {}
    load = compiled("load", folder)
    with _mock(folder) as mock:
        bench = Bench(load, folder, mock, options.realtime)
        turns: list[Kind | None] = [*([None] if "direct" in options.servers else []), *kinds]
        for number in range(options.rounds):
            for kind in turns if number % 2 == 0 else reversed(turns):
                name, began = kind.name if kind else "direct", time.monotonic()
                figures = results.setdefault(name, {})
                if kind is None:
                    _phases(bench, mock, phases, figures)
                else:
                    _serve(bench, kind, Place(folder / name, servers.free_port(), mock.port, core), phases, figures)
                print(f"round {number + 1}: {name}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return results


def _serve(bench: Bench, kind: Kind, place: Place, phases: Sequence[Phase], figures: Rounds) -> None:
    """One turn of a server, from its start to its end, on a fresh folder."""
    asked = bench.stats()["requests"]
    server = Server(kind, place)
    try:
        chosen = [phase for phase in phases if phase.letter not in kind.without]
        _phases(bench, Target(server.port, server.group, kind.model, KEY), chosen, figures)
    finally:
        server.stop()
    if kind.records is not None:
        records, requests = kind.records(place.folder), bench.stats()["requests"] - asked
        void = "" if records == requests else f"{records} records of {requests} requests"
        figures.setdefault("log", []).append({"records": records, "requests": requests, "void": void})
    shutil.rmtree(place.folder)


def _phases(bench: Bench, target: Target, phases: Sequence[Phase], figures: Rounds) -> None:
    for phase in phases:
        figures.setdefault(phase.letter, []).append(bench.measure(target, phase))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
