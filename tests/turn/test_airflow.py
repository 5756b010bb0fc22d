"""The exported DAG run by a real Apache Airflow, in an environment of its own: make conformance-airflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import turning

from noria.settings import child_environment, environment

pytestmark = pytest.mark.slow

VERSION = "3.3.2"
PINS = Path(__file__).parent / "airflow.txt"


@pytest.fixture(scope="module")
def airflow(request: pytest.FixtureRequest) -> Path:
    """The folder of Airflow's programs; installed at first use where the command line asks for it."""
    cache = Path(environment("XDG_CACHE_HOME") or Path.home() / ".cache") / "noria" / f"airflow-{VERSION}"
    if not (cache / "ready").is_file():
        if not request.config.getoption("--airflow"):
            pytest.skip("Airflow is not installed (make conformance-airflow)")
        subprocess.run([sys.executable, "-m", "venv", str(cache)], check=True)
        wanted = [f"apache-airflow-core=={VERSION}", "apache-airflow-providers-standard"]
        subprocess.run([str(cache / "bin" / "pip"), "install", "-q", "-c", str(PINS), *wanted], check=True)
        (cache / "ready").touch()
    return cache / "bin"


def test_every_stage_of_the_dag_runs_in_the_cycle_that_airflow_names(airflow: Path, tmp_path: Path) -> None:
    project = turning.make(tmp_path / "shop")
    dags = tmp_path / "airflow" / "dags"
    dags.mkdir(parents=True)
    noria = f"{sys.executable} -m noria"
    turning.noria("export", "airflow", "--out", str(dags / "shop.py"), "--noria", noria, "--project", str(project))
    env = child_environment(
        PATH=f"{airflow}:{environment('PATH')}", AIRFLOW_HOME=str(tmp_path / "airflow"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False", AIRFLOW__API_AUTH__JWT_SECRET="x" * 64,
        PYTHONPATH=str(Path(__file__).parents[2]),
    )  # fmt: skip

    def call(*words: str) -> str:
        done = subprocess.run(
            [str(airflow / "airflow"), *words], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    call("db", "migrate")
    call("dags", "test", "noria-shop-helpdesk")
    (cycle,) = turning.status(project)["cycles"]
    names = ["sources", "documents", "dataset", "features", "adapter", "report", "release"]
    assert (cycle["stages"], bool(cycle["verdict"])) == (names, True)
