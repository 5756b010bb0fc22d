"""`noria export`: the wheel for schedulers, models for other engines, files to deploy it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.apps.commands.options import HERE, AsJson, Folder, Task, opened
from noria.errors import Invalid

if TYPE_CHECKING:
    from noria.apps.manifests.plan import Images, Limits, Plan, Scale

group = typer.Typer(
    no_args_is_help=True,
    help="The wheel for cron and Airflow; models for other engines; files for compose, Kubernetes and Lambda.\n\n"
    "Example: noria export cron --install",
)

At = Annotated[str, typer.Option("--at", help="When, as cron writes it: minute, hour, day, month, day of the week.")]


@group.command("cron")
def export_cron(
    at: At = "0 0 * * *",
    install: Annotated[bool, typer.Option("--install", help="Put it into your crontab.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out of your crontab.")] = False,
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Print the crontab line that turns the wheel, or install or remove it.

    Example: noria export cron --at "0 0 * * *" --install
    """
    from noria.apps import exports
    from noria.apps.screen import show

    settings = opened(project).settings
    name, _ = settings.task(task)
    if install and remove:
        raise Invalid("--install and --remove at once", "choose one")
    line = exports.cron_line(settings, name, at)
    if install:
        exports.install(settings, name, line)
    elif remove:
        exports.remove(settings, name)
    if as_json:
        show({"task": name, "line": line, "installed": install, "removed": remove}, as_json=True)
    else:
        typer.echo("removed" if remove else line)


@group.command("airflow")
def export_airflow(
    at: At = "0 0 * * *",
    out: Annotated[Path | None, typer.Option(help="Write the DAG file here; else it is printed.")] = None,
    noria: Annotated[str, typer.Option(help="How Airflow's workers call noria.")] = "noria",
    task: Task = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """A DAG of Airflow 3 that runs each stage by `noria run STAGE --cycle …`; Airflow has an environment of its own.

    Example: noria export airflow --out ~/airflow/dags/helpdesk.py
    """
    from noria.apps import exports
    from noria.apps.screen import show

    settings = opened(project).settings
    name, _ = settings.task(task)
    text = exports.airflow_dag(settings, name, at, noria)
    if out is not None:
        exports.written(text, out)
    if as_json:
        show({"task": name, "dag": text, "file": str(out) if out else None}, as_json=True)
    else:
        typer.echo(f"wrote {out}" if out else text)


@group.command("model")
def export_model(
    model: Annotated[str, typer.Argument(help="adapter:TASK@DIGEST; with --task also champion, challenger, latest.")],
    out: Annotated[Path, typer.Option(help="Where it goes; nothing may stand there.")],
    to: Annotated[str, typer.Option(help="folder (Hugging Face's layout) or gguf.")] = "gguf",
    quantize: Annotated[
        str, typer.Option(help="Precision of the GGUF file: f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0.")
    ] = "f16",
    task: Annotated[str | None, typer.Option("--task", help="Whose champion, challenger or latest is meant.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Write an adapter with its base as one model, with tokenizer and chat template; no path of this machine goes in.

    Example: noria export model champion --task helpdesk --to gguf --quantize q8_0 --out helpdesk.gguf
    """
    from noria.apps import shrinking
    from noria.apps.screen import Screen, show

    if to not in ("folder", "gguf"):
        raise Invalid(f"--to '{to}' is not known", "folder or gguf")
    platform = opened(project)
    with Screen() as screen:
        told = shrinking.export(
            model, "folder" if to == "folder" else "gguf", quantize.lower(), out, task, platform, screen
        )
    if as_json:
        show(told, as_json=True)
        return
    typer.echo(f"wrote {told['to']} ({told['size_mb']} MB)")


Out = Annotated[Path, typer.Option("--out", help="Folder to write into; it is made where it is missing.")]
Profiles = Annotated[
    list[str] | None,
    typer.Option("--profile", help="cpu (the default), gpu (vLLM) or mlflow (a server on PostgreSQL); repeat it."),
]
Gpu = Annotated[
    list[str] | None,
    typer.Option("--gpu-model", help="ENGINE=HUB_ID: what vLLM serves for this engine of noria.toml; repeat it."),
]
Serve = Annotated[str | None, typer.Option("--image", help="Image of the gateway, with its tag.")]
Worker = Annotated[str | None, typer.Option("--worker-image", help="Image of the wheel and of MLflow, with its tag.")]
Vllm = Annotated[str | None, typer.Option("--vllm-image", help="Image of vLLM, with its tag.")]
Cpus = Annotated[str, typer.Option(help="Most CPUs of one container, such as 2 or 500m.")]
Memory = Annotated[str, typer.Option(help="Most memory of one container, such as 4Gi.")]
EngineMemory = Annotated[str, typer.Option(help="Most memory of a GPU engine, beside that of the GPU.")]
Gpus = Annotated[int, typer.Option(min=1, max=64, help="GPUs of one engine.")]


@group.command("compose")
def export_compose(
    context: typer.Context,
    out: Out,
    profile: Profiles = None,
    gpu_model: Gpu = None,
    image: Serve = None,
    worker_image: Worker = None,
    vllm_image: Vllm = None,
    cpus: Cpus = "2",
    memory: Memory = "4Gi",
    engine_memory: EngineMemory = "32Gi",
    gpus: Gpus = 1,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """A compose file for one machine, with the project's settings beside it.

    Example: noria export compose --out deploy --profile cpu --profile mlflow
    """
    from noria.apps.manifests import compose
    from noria.apps.manifests.plan import Limits

    images = _images(image, worker_image, vllm_image)
    limits = Limits(cpus=cpus, memory=memory, engine_memory=engine_memory, gpus=gpus)
    plan = _plan(context, project, profile, gpu_model, images, limits)
    _write(compose.files(plan, out), out, "compose.yaml", as_json)


@group.command("kubernetes")
def export_kubernetes(
    context: typer.Context,
    out: Out,
    profile: Profiles = None,
    gpu_model: Gpu = None,
    image: Serve = None,
    worker_image: Worker = None,
    vllm_image: Vllm = None,
    cpus: Cpus = "2",
    memory: Memory = "4Gi",
    engine_memory: EngineMemory = "32Gi",
    gpus: Gpus = 1,
    storage: Annotated[str, typer.Option(help="Size of each volume.")] = "20Gi",
    storage_class: Annotated[str | None, typer.Option(help="Of the volumes; else the cluster's default.")] = None,
    one_node: Annotated[
        bool, typer.Option("--one-node", help="Share a ReadWriteOnce volume: all pods run on the node that has it.")
    ] = False,
    replicas: Annotated[int, typer.Option(min=1, max=500, help="Pods that serve.")] = 2,
    canary: Annotated[int, typer.Option(min=0, max=500, help="More pods, of the canary.")] = 0,
    canary_image: Annotated[str | None, typer.Option(help="Image of the canary.")] = None,
    hpa_max: Annotated[int | None, typer.Option(help="Scale by CPU from --replicas up to so many.")] = None,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """Kubernetes objects: rolling update and canary behind one Service, probes, limits, policies, volumes.

    Example: noria export kubernetes --out k8s --replicas 9 --canary 1 --canary-image noria-gateway:0.2.0
    """
    from noria.apps.manifests import kubernetes
    from noria.apps.manifests.plan import Limits, Scale

    scale = Scale(
        replicas=replicas, canary=canary, canary_image=canary_image, hpa_max=hpa_max, storage_class=storage_class,
        access="ReadWriteOnce" if one_node else "ReadWriteMany",
    )  # fmt: skip
    limits = Limits(cpus=cpus, memory=memory, engine_memory=engine_memory, gpus=gpus, storage=storage)
    plan = _plan(context, project, profile, gpu_model, _images(image, worker_image, vllm_image), limits, scale)
    _write(kubernetes.files(plan), out, "00-project.yaml", as_json)


@group.command("lambda")
def export_lambda(
    context: typer.Context,
    out: Out,
    memory_mb: Annotated[int, typer.Option(min=512, max=10240, help="Memory of the function, in MiB.")] = 1024,
    seconds: Annotated[int, typer.Option(min=5, max=900, help="Time for one event.")] = 120,
    as_json: AsJson = False,
    project: Folder = HERE,
) -> None:
    """An AWS SAM template and a Dockerfile for the data plane on Lambda, before attached engines.

    Example: noria export lambda --out serverless --seconds 300
    """
    from noria import settings as reading
    from noria.apps.manifests import serverless

    settings = reading.load(reading.find(project.resolve()))
    _write(serverless.files(settings, memory_mb, seconds, _typed(context)), out, "template.yaml", as_json)


def _images(serve: str | None, worker: str | None, vllm: str | None) -> Images:
    from noria.apps.manifests.plan import Images

    base = Images()
    return Images(serve or base.serve, worker or base.worker, vllm or base.vllm)


def _plan(
    context: typer.Context,
    project: Path,
    profiles: Sequence[str] | None,
    models: Sequence[str] | None,
    images: Images,
    limits: Limits,
    scale: Scale | None = None,
) -> Plan:
    from noria import settings as reading
    from noria.apps.manifests.plan import Plan, Scale, planned

    named = {}
    for each in models or ():
        engine, _, model = each.partition("=")
        if not engine or not model:
            raise Invalid(f"'{each}' names no engine and model", "such as --gpu-model local=Qwen/Qwen3-1.7B")
        named[engine] = model
    settings = reading.load(reading.find(project.resolve()))
    chosen = tuple(dict.fromkeys(profiles or ["cpu"]))
    return planned(Plan(settings, chosen, images, limits, scale or Scale(), _typed(context), named))


def _typed(context: typer.Context) -> str:
    """The command as it was typed, without what is of this machine alone; defaults are left out."""
    words = ["noria", "export", str(context.info_name)]
    for option in context.command.params:
        value = context.params.get(str(option.name))
        if option.name in ("project", "as_json", "out") or value == option.default or value in (None, []):
            continue
        flag = option.opts[0]
        for each in value if isinstance(value, list) else [value]:
            words += [flag] if each is True else [flag, str(each)]
    return " ".join(words)


def _write(files: Mapping[str, str], out: Path, first: str, as_json: bool) -> None:
    from noria.apps.manifests.written import write
    from noria.apps.screen import show

    done = [str(each) for each in write(files, out, first)]
    if as_json:
        show({"files": done}, as_json=True)
    else:
        typer.echo("\n".join(f"wrote {each}" for each in done))
