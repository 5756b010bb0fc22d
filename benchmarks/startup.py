"""How long a person waits: `import noria`, `noria --help`, and `noria up` until both doors answer.

Prints medians of several runs in seconds. Timings depend on the machine; compare them within one run only.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 7
UPS = 3


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def seconds_until_up(folder: Path) -> float:
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "noria", "up", "--project", str(folder), "--ready-file", str(ready)]
    began = time.perf_counter()
    with (folder / "up.log").open("ab") as log:
        up = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not ready.is_file():
            if up.poll() is not None:
                raise SystemExit((folder / "up.log").read_text())
            time.sleep(0.02)
        return time.perf_counter() - began
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait()


def main() -> None:
    python = sys.executable
    bare = [seconds([python, "-c", "pass"]) for _ in range(RUNS)]
    imported = [seconds([python, "-c", "import noria"]) for _ in range(RUNS)]
    helped = [seconds([python, "-m", "noria", "--help"]) for _ in range(RUNS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "shop"
        subprocess.run([python, "-m", "noria", "init", str(folder)], check=True, stdout=subprocess.DEVNULL)
        file = folder / "noria.toml"
        file.write_text(
            file.read_text().replace("[runtime]", "[runtime]\nlisten = '127.0.0.1:0'\ncontrol = '127.0.0.1:0'")
        )
        ups = [seconds_until_up(folder) for _ in range(UPS)]
    for label, values in (("python -c pass", bare), ("import noria", imported), ("noria --help", helped), ("up", ups)):
        print(f"{label:16} {statistics.median(values):.2f} s")


if __name__ == "__main__":
    main()
