"""Compose files (https://compose-spec.io): one machine, the profiles cpu, gpu and mlflow."""

from __future__ import annotations

from pathlib import Path

from noria.apps.manifests.plan import (
    CONTROL_PORT,
    DATA_PORT,
    ENGINE_PORT,
    HOME,
    MLFLOW_PORT,
    POSTGRES_INIT,
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
from noria.apps.manifests.written import as_yaml, header
from noria.backends import served_kinds
from noria.settings import EngineSettings

LOOPBACK = "127.0.0.1"
SECRETS = "secrets"
"""Folder of the files with secrets, beside compose.yaml; noria never writes into it."""

Table = dict[str, object]


def files(plan: Plan, out: Path) -> dict[str, str]:
    """Name to text of all files; paths in them are relative to `out`."""
    services: dict[str, object] = {}
    for profile in ("cpu", "gpu"):
        if profile in plan.profiles:
            services[f"noria-{profile}"] = _serve(plan, profile, out)
            services[f"wheel-{profile}"] = _wheel(plan, profile, out)
    if "gpu" in plan.profiles:
        services["models"] = _models(plan)
        services |= {engine_service(name): _engine(plan, name, each, out) for name, each in plan.gpu_engines.items()}
    if plan.mlflow:
        services |= {"postgres": _postgres(plan), "mlflow": _mlflow(plan)}
    compose: Table = {
        "name": plan.settings.project.name,
        "services": services,
        "networks": {"default": {"driver": "bridge"}},
        "volumes": {name: {} for name in _volumes(plan)},
    }
    if secrets := _secrets(plan):
        compose["secrets"] = {name: {"file": f"./{SECRETS}/{name}"} for name in secrets}
    # They listen at the same ports: one of them runs.
    serving = [each for each in ("cpu", "gpu") if each in plan.profiles]
    more = " --profile mlflow" if plan.mlflow else ""
    notes = [f"docker compose --profile {each}{more} up --detach --wait" for each in serving]
    if secrets:
        notes.append(
            f"Before: write {', '.join(f'{SECRETS}/{name}' for name in secrets)} (mode 0444 in a folder 0700)."
        )
    if plan.key_names:
        notes.append(f"Set in your shell: {', '.join(plan.key_names)}.")
    told = {"compose.yaml": header(plan.command, notes) + as_yaml(compose)}
    for profile in ("cpu", "gpu"):
        if profile in plan.profiles:
            told[f"noria.{profile}.toml"] = project_file(
                plan, profile == "gpu", f"0.0.0.0:{DATA_PORT}", f"0.0.0.0:{CONTROL_PORT}", None
            )
    if plan.mlflow:
        told["postgres-init.sql"] = POSTGRES_INIT
    return told


def _volumes(plan: Plan) -> list[str]:
    names = ["project"]
    if "gpu" in plan.profiles:
        names.append("models")
    return [*names, "postgres", "artifacts"] if plan.mlflow else names


def _secrets(plan: Plan) -> list[str]:
    return ["postgres_password"] if plan.mlflow else []


def _hardened(plan: Plan, image: str, user: int, memory: str, cpus: str) -> Table:
    """What every service has: no root, no way to it, nothing written but into volumes, and an end to its appetite."""
    return {
        "image": image,
        "user": f"{user}:{user}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "init": True,
        "cpus": _cores(cpus),
        "mem_limit": _bytes(memory),
        "pids_limit": 2048,
        "tmpfs": ["/tmp:mode=1777"],
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }


def _noria(plan: Plan, profile: str, out: Path, image: str) -> Table:
    binds: list[object] = [
        "project:" + HOME,
        {"type": "bind", "source": f"./noria.{profile}.toml", "target": f"{HOME}/noria.toml", "read_only": True},
    ]
    for folder in data_folders(plan.settings):
        source = _relative(plan.settings.root / folder, out)
        binds.append({"type": "bind", "source": source, "target": f"{HOME}/{folder.as_posix()}", "read_only": True})
    waits: Table = {}
    if profile == "gpu":
        waits |= {engine_service(name): {"condition": "service_healthy"} for name in plan.gpu_engines}
    if plan.mlflow:
        waits["mlflow"] = {"condition": "service_healthy"}
    service: Table = {
        **_hardened(plan, image, USER, plan.limits.memory, plan.limits.cpus),
        "profiles": [profile],
        "working_dir": HOME,
        "environment": _environment(plan),
        "volumes": binds,
    }
    return {**service, "depends_on": waits} if waits else service


def _environment(plan: Plan) -> Table:
    """Names alone take their values from the shell that starts compose: no secret is written down."""
    return {"HOME": "/tmp", "HF_HOME": "/tmp/hub", "HF_TOKEN": None, **dict.fromkeys(plan.key_names)}


def _serve(plan: Plan, profile: str, out: Path) -> Table:
    return {
        **_noria(plan, profile, out, plan.images.serve),
        "command": ["noria", "up"],
        "ports": [f"{LOOPBACK}:{DATA_PORT}:{DATA_PORT}", f"{LOOPBACK}:{CONTROL_PORT}:{CONTROL_PORT}"],
        "healthcheck": _health(DATA_PORT, "/ready", start="120s"),
        # The gateways drain for 25 s.
        "stop_grace_period": "60s",
    }


def _wheel(plan: Plan, profile: str, out: Path) -> Table:
    return {
        **_noria(plan, profile, out, plan.images.worker),
        "command": ["noria", "run", "--watch", "--every", "300"],
        "healthcheck": {"disable": True},
        "stop_grace_period": "60s",
    }


def _models(plan: Plan) -> Table:
    """A new volume takes its owner from the first image that mounts it: noria's, where vLLM's knows no /models."""
    return {
        **_hardened(plan, plan.images.worker, USER, "256Mi", "1"),
        "profiles": ["gpu"],
        "restart": "no",
        "command": ["true"],
        "volumes": ["models:/models"],
    }


def _engine(plan: Plan, name: str, engine: EngineSettings, out: Path) -> Table:
    binds: list[object] = ["models:/models"]
    if (folder := model_folder(plan, name, engine)) is not None:
        given, _ = served_kinds.mounted(folder)
        inside = given.is_relative_to(plan.settings.root)
        source = _relative(given, out) if inside else given.as_posix()
        binds.append({"type": "bind", "source": source, "target": served_kinds.MODEL, "read_only": True})
    return {
        **_hardened(plan, plan.images.vllm, USER, plan.limits.engine_memory, plan.limits.cpus),
        "profiles": ["gpu"],
        "command": list(vllm_arguments(plan, name, engine)),
        "environment": {**vllm_variables(engine), "HF_TOKEN": None},
        "volumes": binds,
        "depends_on": {"models": {"condition": "service_completed_successfully"}},
        "shm_size": _bytes(plan.limits.shared_memory),
        "healthcheck": _health(ENGINE_PORT, "/health", start="900s"),
        "deploy": {
            "resources": {
                "reservations": {
                    "devices": [{"driver": "nvidia", "count": plan.gpus(engine), "capabilities": ["gpu"]}]
                }
            }
        },
    }  # fmt: skip


def _postgres(plan: Plan) -> Table:
    return {
        **_hardened(plan, plan.images.postgres, POSTGRES_USER, plan.limits.memory, plan.limits.cpus),
        "profiles": ["mlflow"],
        "environment": {
            "POSTGRES_USER": "noria", "POSTGRES_DB": "noria",
            "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres_password",
            "PGDATA": "/var/lib/postgresql/data/pgdata",
        },
        "secrets": ["postgres_password"],
        "tmpfs": ["/tmp:mode=1777", f"/var/run/postgresql:mode=0755,uid={POSTGRES_USER},gid={POSTGRES_USER}"],
        "volumes": [
            "postgres:/var/lib/postgresql/data",
            {
                "type": "bind", "source": "./postgres-init.sql", "read_only": True,
                "target": "/docker-entrypoint-initdb.d/mlflow.sql",
            },
        ],
        "healthcheck": {
            "test": ["CMD", "pg_isready", "-U", "noria", "-d", "mlflow"],
            "interval": "10s", "timeout": "5s", "retries": 5, "start_period": "60s",
        },
    }  # fmt: skip


def _mlflow(plan: Plan) -> Table:
    allowed = ["mlflow", f"mlflow:{MLFLOW_PORT}", f"localhost:{MLFLOW_PORT}", f"{LOOPBACK}:{MLFLOW_PORT}"]
    return {
        **_hardened(plan, plan.images.worker, USER, plan.limits.memory, plan.limits.cpus),
        "profiles": ["mlflow"],
        # libpq takes a password from a file of its own form only; the shell reads the secret at the start.
        "command": [
            "sh", "-c", 'PGPASSWORD="$$(cat /run/secrets/postgres_password)" exec "$$@"', "mlflow",
            *mlflow_command(allowed),
        ],
        "environment": {
            "HOME": "/tmp", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"
        },
        "secrets": ["postgres_password"],
        "volumes": ["artifacts:/artifacts"],
        "ports": [f"{LOOPBACK}:{MLFLOW_PORT}:{MLFLOW_PORT}"],
        "depends_on": {"postgres": {"condition": "service_healthy"}},
        "healthcheck": _health(MLFLOW_PORT, "/health", start="120s"),
    }  # fmt: skip


def _health(port: int, path: str, start: str) -> Table:
    """Python asks, since slim images have no curl."""
    asked = f"import urllib.request as r; r.urlopen('http://{LOOPBACK}:{port}{path}', timeout=4)"
    return {
        "test": ["CMD", "python3", "-c", asked],
        "interval": "10s", "timeout": "5s", "retries": 3, "start_period": start,
    }  # fmt: skip


def _cores(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _bytes(text: str) -> str:
    """Kubernetes' 4Gi is compose's 4g: both count in powers of 1024."""
    return text[:-1].lower() if text.endswith("i") else text


def _relative(path: Path, out: Path) -> str:
    found = Path(path).resolve().relative_to(out.resolve().anchor)
    base = out.resolve().relative_to(out.resolve().anchor)
    shared = 0
    for one, other in zip(found.parts, base.parts, strict=False):
        if one != other:
            break
        shared += 1
    return "/".join([*([".."] * (len(base.parts) - shared)), *found.parts[shared:]]) or "."
