"""The ledger's tables. A change here needs a new migration in `versions`; released ones are never edited."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

cycles = Table(
    "cycles",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("task", String(63), nullable=False, index=True),
    Column("began", String(32), nullable=False),
    Column("ended", String(32)),
    Column("verdict", String(16)),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False, index=True),
    Column("stage", String(32), nullable=False),
    Column("task", String(63), nullable=False),
    Column("cycle", String(36), nullable=False, index=True),
    Column("output", String(160), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("peak_mb", Float, nullable=False),
    Column("at", String(32), nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("ref", String(160), primary_key=True),
    Column("run_key", String(64), nullable=False),
    Column("parents", Text, nullable=False),
    Column("meta", Text, nullable=False),
)

deployments = Table(
    "deployments",
    metadata,
    Column("task", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("record", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("role", String(16), nullable=False),
    Column("made", String(32), nullable=False),
    Column("revoked", String(32)),
    Column("models", Text),
    Column("limits", Text),
    UniqueConstraint("sha256"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("subject", String(160), nullable=False, index=True),
    Column("fact", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Column("resolved", String(32)),
)
