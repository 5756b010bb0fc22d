"""Columns of tables that one room writes and another reads."""

from __future__ import annotations

import pyarrow as pa

DOCUMENTS = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("fields", pa.string()),
        ("conversation", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("digest", pa.string()),
    ]
)
"""Columns of `noria.types.Document`; `fields` is JSON text."""
