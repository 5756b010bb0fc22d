"""What files of the several kinds are like, without their readers: a process that reads one kind loads one reader."""

from __future__ import annotations

from collections.abc import Mapping

BINARY = frozenset({"chat", "docx", "huggingface", "mbox", "parquet", "pdf"})
"""Kinds whose files may be no text, or text in several encodings: their readers take the bytes as they are."""

DECLARING = frozenset({"html", "xml"})
"""Kinds whose files may say their own encoding, which their reader then heeds."""

BYTE_OFFSETS = frozenset({"csv", "jsonl", "markdown", "text", "tsv"})
"""Kinds whose offsets are bytes of the file, not numbers of rows."""

SEAMS: Mapping[str, tuple[bytes, ...]] = {"jsonl": (b"\n",), "text": (b"\n\n", b"\n\r\n")}
"""Where a large file of a kind may be cut, so that it is never in memory as a whole."""

ONE_ROW_A_PIECE = frozenset({"jsonl"})
"""Kinds in which there is one row between two seams."""
