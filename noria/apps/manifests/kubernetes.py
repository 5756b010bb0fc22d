"""Kubernetes objects: stable and canary Deployments behind one Service, the wheel, and what they stand on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from noria.apps.manifests.plan import (
    CONTROL_PORT,
    DATA_PORT,
    ENGINE_PORT,
    HOME,
    MLFLOW_PORT,
    POSTGRES_INIT,
    POSTGRES_PORT,
    POSTGRES_USER,
    USER,
    Plan,
    data_folders,
    engine_service,
    mlflow_command,
    model_folder,
    project_file,
    vllm_arguments,
    vllm_variables,
)
from noria.apps.manifests.pods import (
    Table,
    claim,
    container,
    deployment,
    empty,
    get,
    labels,
    mount,
    named,
    pod,
    secret_variable,
    variables,
)
from noria.apps.manifests.written import as_yaml, header
from noria.backends import served_kinds
from noria.errors import Invalid
from noria.settings import EngineSettings, Settings

LEDGER = f"postgresql+psycopg://noria@postgres:{POSTGRES_PORT}/noria"
SECRET = "noria-secrets"
"""Made by hand; these files name its keys only."""
_DNS: Table = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}
_OURS: Table = {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "noria"}}}


def files(plan: Plan) -> dict[str, str]:
    """Name to text: one file an object group, in the order in which `kubectl apply -f FOLDER` reads them.

    Raises Invalid for both of cpu and gpu.
    """
    if {"cpu", "gpu"} <= set(plan.profiles):
        raise Invalid("Kubernetes serves one of cpu and gpu", "write each into a folder of its own")
    gpu = "gpu" in plan.profiles
    postgres = plan.mlflow or plan.settings.runtime.ledger.startswith("sqlite")
    groups: dict[str, list[Table]] = {
        "00-project.yaml": [_config(plan, gpu, postgres), *_claims(plan, gpu, postgres)],
        "10-network.yaml": _policies(plan, gpu, postgres),
    }
    if postgres:
        groups["20-postgres.yaml"] = _postgres(plan)
    if plan.mlflow:
        groups["30-mlflow.yaml"] = _mlflow(plan)
    if gpu:
        groups["40-engines.yaml"] = [
            each for name, engine in plan.gpu_engines.items() for each in _engine(plan, name, engine)
        ]
    groups["50-serve.yaml"] = _serving(plan)
    groups["60-wheel.yaml"] = [_wheel(plan)]
    keys = ["admin-key", "pseudonyms", *(["postgres-password"] if postgres else []), *plan.key_names]
    head = header(plan.command, [f"Wants the Secret {SECRET} with the keys {', '.join(keys)}."])
    return {
        name: head + "".join(f"---\n{as_yaml(each)}" for each in objects) for name, objects in groups.items()
    }  # fmt: skip


def _config(plan: Plan, gpu: bool, postgres: bool) -> Table:
    # The control plane stays on the pod's loopback, which kubectl port-forward reaches.
    text = project_file(
        plan, gpu, f"0.0.0.0:{DATA_PORT}", f"127.0.0.1:{CONTROL_PORT}", LEDGER if postgres else None
    )  # fmt: skip
    data: Table = {"noria.toml": text}
    if postgres:
        data["mlflow.sql"] = POSTGRES_INIT
    return {**named("v1", "ConfigMap", "noria", labels("config")), "data": data}


def _claims(plan: Plan, gpu: bool, postgres: bool) -> list[Table]:
    scale, storage = plan.scale, plan.limits.storage
    found = [claim("noria-project", scale.access, storage, scale.storage_class)]
    if postgres:
        found.append(claim("noria-postgres", "ReadWriteOnce", storage, scale.storage_class))
    if plan.mlflow:
        found.append(claim("noria-artifacts", "ReadWriteOnce", storage, scale.storage_class))
    if gpu:
        found += [
            claim(f"noria-{engine_service(name)}", "ReadWriteOnce", storage, scale.storage_class)
            for name in plan.gpu_engines
        ]
    return found


def _project_mounts(plan: Plan, writes: bool) -> list[object]:
    """The project as a container sees it: settings, lake, interactions, data; the rest of .noria is the pod's own.

    Segments lie on the shared volume: the wheel ships them, and they outlive the pod. Their names are random and a
    living writer holds a lock, so that many pods may write beside one another.
    """
    return [
        {"name": "config", "mountPath": f"{HOME}/noria.toml", "subPath": "noria.toml", "readOnly": True},
        mount("project", f"{HOME}/lake", "lake"),
        {"name": "state", "mountPath": f"{HOME}/.noria"},
        mount("project", f"{HOME}/.noria/segments", "segments"),
        {"name": "secrets", "mountPath": f"{HOME}/.noria/secret", "subPath": "pseudonyms", "readOnly": True},
        *(
            {**mount("project", f"{HOME}/{each.as_posix()}", each.as_posix()), "readOnly": not writes}
            for each in data_folders(plan.settings)
        ),
        {"name": "scratch", "mountPath": "/tmp"},
    ]


def _project_volumes() -> list[object]:
    return [
        {"name": "config", "configMap": {"name": "noria", "items": [{"key": "noria.toml", "path": "noria.toml"}]}},
        {"name": "project", "persistentVolumeClaim": {"claimName": "noria-project"}},
        {
            "name": "secrets",
            "secret": {
                "secretName": SECRET, "defaultMode": 0o440, "items": [{"key": "pseudonyms", "path": "pseudonyms"}]
            },
        },
        empty("state"),
        empty("scratch"),
    ]  # fmt: skip


def _environment(plan: Plan) -> list[object]:
    return [
        *variables({"HOME": "/tmp", "HF_HOME": "/tmp/hub"}),
        secret_variable("NORIA_ADMIN_KEY", "admin-key"),
        secret_variable("PGPASSWORD", "postgres-password", optional=True),
        secret_variable("HF_TOKEN", "hf-token", optional=True),
        *(secret_variable(name, name) for name in plan.key_names),
    ]


def _serving(plan: Plan) -> list[Table]:
    scale = plan.scale
    objects = [_serve(plan, "stable", scale.replicas, plan.images.serve)]
    if scale.canary:
        objects.append(_serve(plan, "canary", scale.canary, scale.canary_image or plan.images.serve))
    selector = labels("serve")
    service: Table = {
        **named("v1", "Service", "noria", selector),
        "spec": {
            # Both tracks: the share of the canary is its share of the pods.
            "selector": selector,
            "ports": [{"name": "http", "port": DATA_PORT, "targetPort": "http"}],
        },
    }
    budget: Table = {
        **named("policy/v1", "PodDisruptionBudget", "noria", selector),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}},
    }
    return [service, budget, *objects, *([_autoscaler(plan)] if scale.hpa_max else [])]


def _serve(plan: Plan, track: str, replicas: int, image: str) -> Table:
    mine = {**labels("serve"), "noria/track": track}
    serving = {
        **container("noria", image, ["noria", "up"], plan.limits.cpus, plan.limits.memory),
        "workingDir": HOME,
        "env": _environment(plan),
        "ports": [{"name": "http", "containerPort": DATA_PORT}],
        "volumeMounts": _project_mounts(plan, writes=False),
        "startupProbe": get("/health", "http", period=5, failures=60),
        "readinessProbe": get("/ready", "http", period=5, failures=2),
        "livenessProbe": get("/health", "http", period=10, failures=6),
        # The Service needs a moment to forget the pod, which drains for 25 s after SIGTERM.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
    }
    spec = pod(USER, [serving], _project_volumes(), grace=60)
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(mine)},
        }
    ]  # fmt: skip
    scaled = track == "stable" and plan.scale.hpa_max is not None
    return deployment(
        f"noria-{track}", mine, spec, None if scaled else replicas,
        {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
    )  # fmt: skip


def _autoscaler(plan: Plan) -> Table:
    return {
        **named("autoscaling/v2", "HorizontalPodAutoscaler", "noria", labels("serve")),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "noria-stable"},
            "minReplicas": plan.scale.replicas,
            "maxReplicas": plan.scale.hpa_max,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
                }
            ],
        },
    }


def _wheel(plan: Plan) -> Table:
    working = {
        **container(
            "wheel", plan.images.worker, ["noria", "run", "--watch", "--every", "300"],
            plan.limits.cpus, plan.limits.memory,
        ),
        "workingDir": HOME,
        "env": _environment(plan),
        "volumeMounts": _project_mounts(plan, writes=True),
    }  # fmt: skip
    # One cycle of a task at a time: a second wheel would only be told so.
    return deployment(
        "noria-wheel", labels("wheel"), pod(USER, [working], _project_volumes(), grace=60), 1, {"type": "Recreate"}
    )


def _engine(plan: Plan, name: str, engine: EngineSettings) -> list[Table]:
    title, mine = engine_service(name), {**labels("engine"), "noria/engine": engine_service(name)}
    inside = _model(plan, name, engine)
    running = {
        **container(
            "vllm", plan.images.vllm, None, plan.limits.cpus, plan.limits.engine_memory,
            extra={"nvidia.com/gpu": str(plan.gpus(engine))},
        ),
        "args": list(vllm_arguments(plan, name, engine)),
        "env": [*variables(vllm_variables(engine)), secret_variable("HF_TOKEN", "hf-token", optional=True)],
        "ports": [{"name": "http", "containerPort": ENGINE_PORT}],
        "volumeMounts": [
            mount("models", "/models"), mount("scratch", "/tmp"), mount("shm", "/dev/shm"), *(
                [{**mount("project", served_kinds.MODEL, inside), "readOnly": True}] if inside is not None else []
            ),
        ],
        # Weights may have to be fetched first.
        "startupProbe": get("/health", "http", period=10, failures=180),
        "readinessProbe": get("/health", "http", period=10, failures=3),
        "livenessProbe": get("/health", "http", period=10, failures=6),
    }  # fmt: skip
    volumes: list[object] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": f"noria-{title}"}},
        empty("scratch"),
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": plan.limits.shared_memory}},
    ]
    if inside is not None:
        volumes.append({"name": "project", "persistentVolumeClaim": {"claimName": "noria-project", "readOnly": True}})
    service: Table = {
        **named("v1", "Service", title, mine),
        "spec": {"selector": mine, "ports": [{"name": "http", "port": ENGINE_PORT, "targetPort": "http"}]},
    }
    # A second one beside the first would wait for a GPU that the first holds.
    return [service, deployment(title, mine, pod(USER, [running], volumes, grace=60), 1, {"type": "Recreate"})]


def _model(plan: Plan, name: str, engine: EngineSettings) -> str | None:
    """The folder of the project's volume that an engine's model is copied to; None for an id on the hub.

    Raises Invalid for a folder that is not the project's: a pod may mount nothing of its node.
    """
    folder = model_folder(plan, name, engine)
    if folder is None:
        return None
    given, _ = served_kinds.mounted(folder)
    root = Path(os.path.normpath(plan.settings.root))
    if not given.is_relative_to(root) or given == root:
        raise Invalid(
            f"the model folder '{engine.model}' of engine '{name}' lies outside of the project",
            f"move it to a folder beside noria.toml, or --gpu-model {name}=OWNER/NAME",
            where=plan.settings.place("engines", name, "model"),
        )
    return given.relative_to(root).as_posix()


def _postgres(plan: Plan) -> list[Table]:
    mine = labels("postgres")
    probe: Table = {"exec": {"command": ["pg_isready", "-U", "noria", "-d", "mlflow"]}, "periodSeconds": 10}
    database = {
        **container("postgres", plan.images.postgres, None, plan.limits.cpus, plan.limits.memory),
        "env": [
            *variables({"POSTGRES_USER": "noria", "POSTGRES_DB": "noria", "PGDATA": "/var/lib/postgresql/data/pgdata"}),
            secret_variable("POSTGRES_PASSWORD", "postgres-password"),
        ],
        "ports": [{"name": "sql", "containerPort": POSTGRES_PORT}],
        "volumeMounts": [
            mount("data", "/var/lib/postgresql/data"),
            mount("run", "/var/run/postgresql"),
            mount("scratch", "/tmp"),
            {"name": "init", "mountPath": "/docker-entrypoint-initdb.d", "readOnly": True},
        ],
        "startupProbe": {**probe, "failureThreshold": 30},
        "readinessProbe": {**probe, "timeoutSeconds": 5},
        "livenessProbe": {**probe, "timeoutSeconds": 5, "failureThreshold": 6},
    }
    volumes: list[object] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "noria-postgres"}},
        {"name": "init", "configMap": {"name": "noria", "items": [{"key": "mlflow.sql", "path": "mlflow.sql"}]}},
        empty("run"),
        empty("scratch"),
    ]
    service: Table = {
        **named("v1", "Service", "postgres", mine),
        "spec": {"selector": mine, "ports": [{"name": "sql", "port": POSTGRES_PORT, "targetPort": "sql"}]},
    }
    spec = pod(POSTGRES_USER, [database], volumes, grace=60)
    return [service, deployment("postgres", mine, spec, 1, {"type": "Recreate"})]


def _mlflow(plan: Plan) -> list[Table]:
    mine = labels("mlflow")
    allowed = ["mlflow", f"mlflow:{MLFLOW_PORT}", f"localhost:{MLFLOW_PORT}", f"127.0.0.1:{MLFLOW_PORT}"]
    # The kubelet asks by the pod's address, which MLflow would refuse as a host it does not know.
    host = {"httpHeaders": [{"name": "Host", "value": "mlflow"}]}

    def probe(period: int, failures: int) -> Table:
        asked = get("/health", "http", period, failures)
        return {**asked, "httpGet": {"path": "/health", "port": "http", **host}}

    server = {
        **container("mlflow", plan.images.worker, mlflow_command(allowed), plan.limits.cpus, plan.limits.memory),
        "env": [
            *variables(
                {"HOME": "/tmp", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            ),
            secret_variable("PGPASSWORD", "postgres-password"),
        ],
        "ports": [{"name": "http", "containerPort": MLFLOW_PORT}],
        "volumeMounts": [mount("artifacts", "/artifacts"), mount("scratch", "/tmp")],
        "startupProbe": probe(5, 48),
        "readinessProbe": probe(10, 3),
        "livenessProbe": probe(10, 6),
    }
    volumes: list[object] = [
        {"name": "artifacts", "persistentVolumeClaim": {"claimName": "noria-artifacts"}},
        empty("scratch"),
    ]
    service: Table = {
        **named("v1", "Service", "mlflow", mine),
        "spec": {"selector": mine, "ports": [{"name": "http", "port": MLFLOW_PORT, "targetPort": "http"}]},
    }
    return [service, deployment("mlflow", mine, pod(USER, [server], volumes, grace=30), 1, {"type": "Recreate"})]


def _policies(plan: Plan, gpu: bool, postgres: bool) -> list[Table]:
    """Nothing comes in but what is named here, and noria's pods speak to one another, DNS, HTTPS and known servers."""
    ports = {443} | {port for text in _servers(plan.settings) if text and (port := _port(text)) is not None}
    outside: Table = {"ports": [{"protocol": "TCP", "port": port} for port in sorted(ports)]}
    found = [
        _policy("noria-part", {"app.kubernetes.io/part-of": "noria"}, [], [_DNS, {"to": [_OURS]}]),
        _policy("noria-serve", labels("serve"), [{"ports": [{"protocol": "TCP", "port": DATA_PORT}]}], [outside]),
        _policy("noria-wheel", labels("wheel"), [], [outside]),
    ]
    inner: dict[str, tuple[int, tuple[str, ...]]] = {}
    if postgres:
        inner["postgres"] = (POSTGRES_PORT, ("serve", "wheel", "mlflow"))
    if plan.mlflow:
        inner["mlflow"] = (MLFLOW_PORT, ("serve", "wheel"))
    if gpu:
        inner["engine"] = (ENGINE_PORT, ("serve", "wheel"))
    for component, (port, callers) in inner.items():
        rule: Table = {
            "from": [{"podSelector": {"matchLabels": labels(each)}} for each in callers],
            "ports": [{"protocol": "TCP", "port": port}],
        }
        # Weights come from the hub.
        egress = [outside] if component == "engine" else []
        found.append(_policy(f"noria-{component}", labels(component), [rule], egress))
    return found


def _servers(settings: Settings) -> Iterator[str | None]:
    """The addresses of all that noria.toml names."""
    runtime = settings.runtime
    yield from (runtime.ledger, runtime.tracking, runtime.spark, runtime.features)
    for engine in settings.engines.values():
        yield from (engine.url, *engine.urls)
    yield from (source.url for source in settings.sources)
    for tool in settings.tools.values():
        yield None if tool.mcp is None else tool.mcp.url
        yield from (table.url for table in tool.tables.values())


def _policy(name: str, selector: Mapping[str, str], ingress: list[Table], egress: list[Table]) -> Table:
    return {
        **named("networking.k8s.io/v1", "NetworkPolicy", name, {"app.kubernetes.io/part-of": "noria"}),
        "spec": {
            "podSelector": {"matchLabels": dict(selector)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [*ingress],
            "egress": [*egress],
        },
    }


def _port(url: str) -> int | None:
    parts = urlsplit(url)
    if not parts.hostname:
        return None
    known = {"https": 443, "http": 80, "sc": 15002, "redis": 6379, "mysql": 3306, "mssql": 1433}
    return parts.port or known.get(parts.scheme.partition("+")[0], POSTGRES_PORT)
