"""Pieces of Kubernetes objects: pods that pass the restricted Pod Security Standard, probes, volumes, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Table = dict[str, object]


def labels(component: str) -> dict[str, str]:
    """Labels of a component; also its selector."""
    return {"app.kubernetes.io/part-of": "noria", "app.kubernetes.io/component": component}


def named(version: str, kind: str, name: str, marks: Mapping[str, str]) -> Table:
    """The head of an object."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": dict(marks)}}


def pod(user: int, containers: Sequence[Table], volumes: list[object], grace: int) -> Table:
    """A pod that is nobody, may ask Kubernetes nothing and keeps to the default system calls."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [*containers],
        "volumes": volumes,
    }  # fmt: skip


def container(
    name: str,
    image: str,
    command: Sequence[str] | None,
    cpus: str,
    memory: str,
    extra: Mapping[str, object] | None = None,
) -> Table:
    """A container with limits; what it asks for is half the CPUs, and all of the memory, which cannot be shared out.

    `extra` are devices, which are asked for as they are limited.
    """
    devices = dict(extra or {})
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        **({"command": [*command]} if command is not None else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": _half(cpus), "memory": memory, **devices},
            "limits": {"cpu": cpus, "memory": memory, **devices},
        },
    }  # fmt: skip


def deployment(name: str, mine: Mapping[str, str], spec: Table, replicas: int | None, strategy: Table) -> Table:
    """A Deployment; `replicas` None leaves their number to an autoscaler."""
    return {
        **named("apps/v1", "Deployment", name, mine),
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            "revisionHistoryLimit": 5,
            "selector": {"matchLabels": dict(mine)},
            "strategy": strategy,
            "template": {"metadata": {"labels": dict(mine)}, "spec": spec},
        },
    }


def claim(name: str, access: str, storage: str, storage_class: str | None) -> Table:
    """A PersistentVolumeClaim; without a class, of the cluster's default."""
    spec: Table = {"accessModes": [access], "resources": {"requests": {"storage": storage}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {**named("v1", "PersistentVolumeClaim", name, labels("storage")), "spec": spec}


def get(path: str, port: str, period: int, failures: int) -> Table:
    """A probe by HTTP; times in seconds."""
    return {
        "httpGet": {"path": path, "port": port}, "periodSeconds": period, "timeoutSeconds": 4,
        "failureThreshold": failures,
    }  # fmt: skip


def mount(name: str, path: str, inside: str | None = None) -> Table:
    """Where a volume, or a folder of it, appears."""
    return {"name": name, "mountPath": path, **({"subPath": inside} if inside is not None else {})}


def empty(name: str) -> Table:
    """A folder that ends with its pod."""
    return {"name": name, "emptyDir": {}}


def variables(values: Mapping[str, str]) -> list[object]:
    """Plain variables."""
    return [{"name": name, "value": value} for name, value in values.items()]


def secret_variable(name: str, key: str, optional: bool = False) -> Table:
    """A variable whose value the Secret has."""
    chosen: Table = {"name": "noria-secrets", "key": key, **({"optional": True} if optional else {})}
    return {"name": name, "valueFrom": {"secretKeyRef": chosen}}


def _half(cpus: str) -> str:
    milli = float(cpus[:-1]) if cpus.endswith("m") else float(cpus) * 1000
    return f"{max(1, int(milli / 2))}m"
