"""Files for compose and Kubernetes: valid by their schemas, hardened, the same every time."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from noria.apps import start
from noria.apps.cli import app
from noria.apps.manifests.plan import Images, Limits, Scale, data_folders
from noria.errors import Conflict, Invalid, NoriaError
from noria.settings import load

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent.parent / "golden"
GPU = ("--gpu-model", "local=Qwen/Qwen3-1.7B")
KUBERNETES = ("1.29", "1.31", "1.33")
SECRET_LIKE = re.compile(r"(?i)(password|token|secret|key)\s*[:=]\s*['\"]?[A-Za-z0-9+/]{16,}")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    start.make(tmp_path / "shop")
    return tmp_path / "shop"


def run(project: Path, *words: str) -> Path:
    out = project / "out"
    done = CliRunner().invoke(app, ["export", *words, "--out", str(out), "--project", str(project)])
    if isinstance(done.exception, NoriaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return out


def objects(out: Path) -> list[dict[str, Any]]:
    return [each for file in sorted(out.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text())]


def pods(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in objects(out):
        if each["kind"] == "Deployment":
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("compose", ("compose", "--profile", "cpu", "--profile", "gpu", "--profile", "mlflow", *GPU)),
        (
            "kubernetes",
            ("kubernetes", "--profile", "gpu", "--profile", "mlflow", "--canary", "1", "--hpa-max", "5", *GPU),
        ),
    ],
)
def test_the_files_are_those_that_were_looked_at(project: Path, name: str, words: tuple[str, ...]) -> None:
    """To renew them after a wanted change: write `told` to the file that the assertion names."""
    out = run(project, *words)
    told = "".join(f"### {file.name}\n{file.read_text()}" for file in sorted(out.iterdir()))
    assert told == (GOLDEN / f"{name}.txt").read_text()
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    run(project, *words)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("words", [(), ("--profile", "gpu", "--profile", "mlflow", *GPU), ("--canary", "2")])
def test_objects_are_valid_by_the_schemas_of_kubernetes(project: Path, version: str, words: tuple[str, ...]) -> None:
    found = objects(run(project, "kubernetes", *words))
    for each in found:
        kubernetes_validate.validate(each, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**found[0], "data": 5}, version, strict=True)


def test_pods_pass_the_restricted_standard(project: Path) -> None:
    out = run(project, "kubernetes", "--profile", "gpu", "--profile", "mlflow", "--canary", "1", *GPU)
    seen = dict(pods(out))
    assert set(seen) == {"noria-stable", "noria-canary", "noria-wheel", "engine-local", "postgres", "mlflow"}
    for name, spec in seen.items():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for each in spec["containers"]:
            own = each["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(each["resources"]["limits"])
            assert ":" in each["image"].rpartition("/")[2]
            assert not each["image"].endswith(":latest")
            mounted = {path["name"] for path in each["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in spec["volumes"]}
            assert name == "noria-wheel" or {"startupProbe", "readinessProbe", "livenessProbe"} <= set(each)


def test_a_rolling_update_never_serves_with_fewer_and_a_canary_shares_the_service(project: Path) -> None:
    words = ("--replicas", "9", "--canary", "1", "--canary-image", "noria-gateway:0.2.0")
    found = objects(run(project, "kubernetes", *words))
    tracks = {each["metadata"]["name"]: each for each in found if each["metadata"]["labels"].get("noria/track")}
    service = next(each for each in found if each["kind"] == "Service" and each["metadata"]["name"] == "noria")
    assert {name: each["spec"]["replicas"] for name, each in tracks.items()} == {"noria-stable": 9, "noria-canary": 1}
    for each in tracks.values():
        rolling = each["spec"]["strategy"]["rollingUpdate"]
        assert rolling["maxUnavailable"] == 0
        assert service["spec"]["selector"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
    selectors = [each["spec"]["selector"]["matchLabels"] for each in tracks.values()]
    assert selectors[0] != selectors[1]
    assert tracks["noria-canary"]["spec"]["template"]["spec"]["containers"][0]["image"] == "noria-gateway:0.2.0"


def test_an_autoscaler_owns_the_number_of_replicas(project: Path) -> None:
    found = objects(run(project, "kubernetes", "--hpa-max", "5"))
    stable = next(each for each in found if each["metadata"]["name"] == "noria-stable")
    assert "replicas" not in stable["spec"]
    assert any(each["kind"] == "HorizontalPodAutoscaler" for each in found)


def test_every_selector_finds_pods_and_every_host_name_a_service(project: Path) -> None:
    found = objects(run(project, "kubernetes", "--profile", "gpu", "--profile", "mlflow", *GPU))
    templates = [each["spec"]["template"]["metadata"]["labels"] for each in found if each["kind"] == "Deployment"]
    for each in found:
        selector = each["spec"].get("selector") if each["kind"] == "Service" else None
        if each["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            selector = each["spec"].get("podSelector", each["spec"].get("selector"))["matchLabels"]
        if selector is not None:
            assert any(selector.items() <= mine.items() for mine in templates), each["metadata"]
    services = {each["metadata"]["name"] for each in found if each["kind"] == "Service"}
    toml = next(each for each in found if each["kind"] == "ConfigMap")["data"]["noria.toml"]
    hosts = set(re.findall(r"(?:https?://|@)([a-z][\w-]*):\d+", toml))
    assert hosts == {"postgres", "mlflow", "engine-local"}
    assert hosts <= services


def test_a_project_file_for_containers_can_be_read_and_differs_in_its_tables_only(project: Path) -> None:
    out = run(project, "compose", "--profile", "gpu", "--profile", "mlflow", *GPU)
    found = load(out / "noria.gpu.toml")
    assert found.runtime.listen == "0.0.0.0:8000"
    assert found.runtime.tracking == "http://mlflow:5000"
    assert found.engines["local"].url == "http://engine-local:8000/v1"
    assert found.tasks == load(project / "noria.toml").tasks
    assert "# what clients name as their model" in (out / "noria.gpu.toml").read_text()


def test_compose_services_are_hardened(project: Path) -> None:
    out = run(project, "compose", "--profile", "cpu", "--profile", "gpu", "--profile", "mlflow", *GPU)
    told = yaml.safe_load((out / "compose.yaml").read_text())
    for name, service in told["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service["user"].startswith("0")
        assert service["mem_limit"]
        assert service["profiles"][0] in ("cpu", "gpu", "mlflow")
        # Nothing is published beyond this machine.
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in service.get("volumes", []):
            if isinstance(volume, str):
                assert volume.split(":")[0] in told["volumes"]
            else:
                assert volume["read_only"] is True
                assert (out / volume["source"]).exists()
        assert set(service.get("depends_on", {})) <= set(told["services"])
    assert told["services"]["engine-local"]["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 1


@pytest.mark.parametrize("kind", ["compose", "kubernetes"])
def test_secrets_are_named_and_never_written(project: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    file = project / "noria.toml"
    text = file.read_text()
    file.write_text(f'{text}\n[engines.away]\nkind = "openai"\nurl = "http://10.0.0.9:8123/v1"\nkey = "AWAY_KEY"\n')
    monkeypatch.setenv("AWAY_KEY", "a-very-private-value")
    out = run(project, kind, "--profile", "cpu", "--profile", "mlflow")
    told = "".join(each.read_text() for each in out.iterdir())
    assert "a-very-private-value" not in told
    assert "AWAY_KEY" in told
    assert not SECRET_LIKE.search(told)
    if kind == "kubernetes":
        assert not any(each["kind"] == "Secret" for each in objects(out))
        assert "port: 8123" in told


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("compose", "--profile", "cpuu"), "no profile 'cpuu'"),
        (("compose", "--profile", "mlflow"), "nothing would serve"),
        (("compose", "--profile", "gpu"), "vLLM's container"),
        (("compose", "--profile", "gpu", "--gpu-model", "other=a/b"), "no engine 'other'"),
        (("compose", "--gpu-model", "local"), "names no engine"),
        (("compose", "--image", "noria"), "'noria' does not pin"),
        (("compose", "--image", "noria:latest"), "does not pin"),
        (("kubernetes", "--memory", "lots"), "'lots' is no quantity"),
        (("kubernetes", "--profile", "cpu", "--profile", "gpu", *GPU), "one of cpu and gpu"),
        (("kubernetes", "--canary-image", "a:1"), "without canaries"),
        (("kubernetes", "--hpa-max", "1"), "below --replicas"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(project: Path, words: tuple[str, ...], fact: str) -> None:
    with pytest.raises(Invalid, match=re.escape(fact)):
        run(project, *words)
    assert not (project / "out").exists()


def test_a_file_of_somebody_else_stays(project: Path) -> None:
    out = project / "out"
    out.mkdir()
    (out / "compose.yaml").write_text("services: {}\n")
    with pytest.raises(Conflict, match="was not made by noria"):
        run(project, "compose")
    assert (out / "compose.yaml").read_text() == "services: {}\n"


def test_images_by_digest_and_registries_with_ports_are_fine() -> None:
    digest = f"registry:5000/team/noria@sha256:{'0' * 64}"
    assert Images(serve=digest, worker="registry:5000/noria:1.0").serve == digest
    with pytest.raises(Invalid):
        Images(serve="registry:5000/noria")
    assert Limits(cpus="500m").cpus == "500m"
    assert Scale(replicas=1).canary == 0


def test_the_command_tells_its_files(project: Path) -> None:
    words = ["export", "compose", "--json", "--out", str(project / "out"), "--project", str(project)]
    told = json.loads(CliRunner().invoke(app, words).stdout)
    assert [Path(each).name for each in told["files"]] == ["compose.yaml", "noria.cpu.toml"]


def test_lambda_s_files_attach_and_name_secrets(project: Path) -> None:
    file = project / "noria.toml"
    with pytest.raises(Invalid, match="only attaches"):
        run(project, "lambda")
    text = file.read_text().replace('kind = "llamacpp"', 'kind = "openai"\nkey = "AWAY_KEY"')
    text = text.replace('model = "smollm2-135m-instruct" # or a GGUF file', 'url = "http://engine:8000/v1"')
    file.write_text(text)
    with pytest.raises(Invalid, match="ledger in a file"):
        run(project, "lambda")
    file.write_text(text.replace("sqlite:///noria.db", "postgresql+psycopg://noria@db:5432/noria"))
    out = run(project, "lambda", "--seconds", "300")
    told = yaml.safe_load((out / "template.yaml").read_text())
    properties = told["Resources"]["Gateway"]["Properties"]
    assert properties["Timeout"] == 300
    assert set(properties["Environment"]["Variables"]) == {
        "NORIA_ADMIN_KEY", "NORIA_PSEUDONYMS", "PGPASSWORD", "AWAY_KEY"
    }  # fmt: skip
    assert all(each.startswith("{{resolve:") for each in properties["Environment"]["Variables"].values())
    assert load(out / "noria.toml").runtime.lake == properties["FileSystemConfigs"][0]["LocalMountPath"]
    module, _, name = re.findall(r'CMD \["(.+)"\]', (out / "Dockerfile").read_text())[0].rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("word", ["compose", "kubernetes", "lambda"])
def test_every_command_has_an_example(word: str) -> None:
    assert "Example: noria export" in CliRunner().invoke(app, ["export", word, "--help"]).output


def test_an_engine_s_container_has_all_that_noria_toml_says_of_it(project: Path) -> None:
    file = project / "noria.toml"
    told = (
        'kind = "vllm"\ngpus = 2\nquantization = "awq_marlin"\ndtype = "float16"\nmemory_share = 0.8\nloras = 3\n'
        'tools = "hermes"\nremote_code = true\nflags = ["--seed", "7"]\nprice = { prompt = 0.5 }\n'
        "health = { every = 5 }"
    )
    file.write_text(file.read_text().replace('kind = "llamacpp"', told))
    out = run(project, "compose", "--profile", "gpu", "--gpus", "4", *GPU)
    engine = yaml.safe_load((out / "compose.yaml").read_text())["services"]["engine-local"]
    words = " ".join(engine["command"])
    for flag in (
        "--model Qwen/Qwen3-1.7B", "--tensor-parallel-size 4", "--quantization awq_marlin", "--dtype float16",
        "--gpu-memory-utilization 0.8", "--max-loras 3", "--enable-auto-tool-choice --tool-call-parser hermes",
        "--trust-remote-code", "--seed 7",
    ):  # fmt: skip
        assert flag in words
    assert engine["environment"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert engine["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 4
    attached = load(out / "noria.gpu.toml").engines["local"]
    assert (attached.price.prompt, attached.health.every) == (0.5, 5.0)


def of_folder(project: Path, model: str) -> None:
    file = project / "noria.toml"
    text = file.read_text().replace('kind = "llamacpp"', 'kind = "vllm"')
    file.write_text(re.sub(r'(?m)^model = "smollm2[^"]*".*$', f'model = "{model}"', text))


@pytest.mark.parametrize("model", ["models/qwen", "qwen"])
def test_a_model_s_folder_is_mounted_read_only_in_its_engine_s_container(project: Path, model: str) -> None:
    (project / model).mkdir(parents=True)
    of_folder(project, model)
    out = run(project, "compose", "--profile", "gpu")
    engine = yaml.safe_load((out / "compose.yaml").read_text())["services"]["engine-local"]
    assert engine["command"][:2] == ["--model", "/model"]
    assert engine["volumes"] == [
        "models:/models",
        {"type": "bind", "source": f"../{model}", "target": "/model", "read_only": True},
    ]
    assert (out / f"../{model}").is_dir()


def test_a_model_s_folder_on_kubernetes_lies_on_the_project_s_volume(project: Path) -> None:
    (project / "models" / "qwen").mkdir(parents=True)
    of_folder(project, "models/qwen")
    out = run(project, "kubernetes", "--profile", "gpu")
    for each in objects(out):
        kubernetes_validate.validate(each, KUBERNETES[-1], strict=True)
    spec = dict(pods(out))["engine-local"]
    (engine,) = spec["containers"]
    assert engine["args"][:2] == ["--model", "/model"]
    given = next(each for each in engine["volumeMounts"] if each["mountPath"] == "/model")
    assert given == {"name": "project", "mountPath": "/model", "subPath": "models/qwen", "readOnly": True}
    assert {"name": "project", "persistentVolumeClaim": {"claimName": "noria-project", "readOnly": True}} in (
        spec["volumes"]
    )


def test_of_the_hub_s_cache_the_files_behind_the_links_are_mounted_too(project: Path, tmp_path: Path) -> None:
    away = tmp_path / "hub" / "models--a--b"
    (away / "snapshots" / "0123").mkdir(parents=True)
    of_folder(project, str(away / "snapshots" / "0123"))
    out = run(project, "compose", "--profile", "gpu")
    engine = yaml.safe_load((out / "compose.yaml").read_text())["services"]["engine-local"]
    assert engine["command"][:2] == ["--model", "/model/snapshots/0123"]
    assert engine["volumes"][1] == {"type": "bind", "source": str(away), "target": "/model", "read_only": True}
    with pytest.raises(Invalid, match="lies outside of the project"):
        run(project, "kubernetes", "--profile", "gpu")


@pytest.mark.parametrize(
    ("model", "fact"), [("./models/none", "no model folder './models/none'"), ("m.gguf", "names a GGUF file")]
)
def test_a_model_that_a_container_cannot_have_is_refused(project: Path, model: str, fact: str) -> None:
    of_folder(project, model)
    with pytest.raises(Invalid, match=fact):
        run(project, "compose", "--profile", "gpu")


def test_folders_of_data_are_those_of_the_project(project: Path) -> None:
    file = project / "noria.toml"
    sources = "".join(
        f'\n[[sources]]\nname = "more{number}"\nkind = "csv"\npath = "{path}"\n'
        for number, path in enumerate(("raw/*.csv", "s3://bucket/deep/*.csv", "top.csv", "a/../b/c.csv"))
    )
    tables = '\n[tools.shop]\ntables = { goods = { path = "sheets/goods.csv", columns = "meanings/goods.csv" } }\n'
    file.write_text(file.read_text() + sources + tables)
    before = {"data"} & {each.name for each in project.iterdir()}
    assert {str(each) for each in data_folders(load(file))} == before | {"raw", "b", "sheets", "meanings"}
    file.write_text(file.read_text().replace("top.csv", "../away/x.csv"))
    with pytest.raises(Invalid, match="outside of the project"):
        data_folders(load(file))


def test_what_noria_toml_names_can_be_reached_and_its_bounds_stay(project: Path) -> None:
    file = project / "noria.toml"
    more = (
        '\n[tools.shop]\nmcp = { url = "http://shop:9007/mcp" }\n'
        '\n[[sources]]\nname = "sold"\nkind = "sql"\nurl = "mysql+pymysql://u@db/x"\nquery = "SELECT 1"\n'
    )
    bounds = '[runtime]\nfeatures = "redis://cache:6380/0"\nmemory = "3GB"\nengine_log = "1MB"'
    file.write_text(file.read_text().replace("[runtime]", bounds) + more)
    found = objects(run(project, "kubernetes"))
    serving = next(
        each for each in found if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "noria-serve"
    )
    assert {each["port"] for each in serving["spec"]["egress"][0]["ports"]} >= {443, 3306, 6380, 9007}
    config = next(each for each in found if each["kind"] == "ConfigMap")
    (project / "read.toml").write_text(config["data"]["noria.toml"])
    runtime = load(project / "read.toml").runtime
    assert (runtime.memory, runtime.engine_log) == ("3GB", "1MB")


@pytest.mark.parametrize("wrong", [{"cpus": "4Gi"}, {"cpus": "0"}, {"memory": "500m"}, {"memory": "4"}])
def test_cpus_and_memory_have_quantities_of_their_own(wrong: dict[str, str]) -> None:
    assert Limits(cpus="0.5", memory="512Mi").cpus == "0.5"
    with pytest.raises(Invalid, match="is no quantity of"):
        Limits(**wrong)  # type: ignore[arg-type]
