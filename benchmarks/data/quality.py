"""How many of the planted near duplicates were found, and what else was dropped."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq

SIMILAR = 0.7
"""From here on the product calls two texts near duplicates."""
BINS = (0.8, 0.85, 0.9, 0.95, 1.0)


def ids(table: Path) -> set[str]:
    """Ids of the documents that are left."""
    return set(ds.dataset(table).to_table(columns=["id"])["id"].to_pylist())


def judged(truth: Path, left: set[str]) -> dict[str, Any]:
    """Recall of planted pairs of similarity 0.8 and more, precision of what was dropped, clusters lost whole.

    A pair is found when not both of its sides are left; copies of a document are one side. What was dropped beyond
    copies is right when it is of a planted pair of similarity 0.7 and more.
    """
    rows = pq.read_table(truth).to_pylist()
    copies: dict[str, list[str]] = defaultdict(list)
    pairs = []
    for row in rows:
        if row["kind"] in ("near", "related"):
            copies[row["id"]].append(row["id"])
            pairs.append((row["id"], row["of"], row["jaccard"]))
        else:
            copies[row["of"]].append(row["id"])
    stays = {name: not left.isdisjoint(members) for name, members in copies.items()}
    found: dict[float, list[bool]] = defaultdict(list)
    close, clusters = set(), defaultdict(set)
    for one, other, similarity in pairs:
        clusters[other] |= {one, other}
        if similarity >= SIMILAR:
            close |= {one, other}
        if similarity >= BINS[0]:
            edge = max(edge for edge in BINS[:-1] if similarity >= edge)
            found[edge].append(not (stays[one] and stays[other]))
    dropped = [name for name, there in stays.items() if not there]
    whole = [members for members in clusters.values() if not any(stays[member] for member in members)]
    alone = [name for name in dropped if name not in close]
    every = [hit for hits in found.values() for hit in hits]
    return {
        "planted": len(every),
        "recall": round(sum(every) / max(len(every), 1), 5),
        "recall_by_similarity": {
            str(edge): [len(hits), round(sum(hits) / len(hits), 5)] for edge, hits in sorted(found.items())
        },
        "dropped": len(dropped),
        "precision": round(1 - len(alone) / max(len(dropped), 1), 5),
        "related": sum(similarity < SIMILAR for _, _, similarity in pairs),
        "copies_left": sum(len(left.intersection(members)) - 1 for name, members in copies.items() if stays[name]),
        "clusters_lost_whole": len(whole),
    }


def table(found: list[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        "| documents | planted near duplicates | recall | at 0.80-0.85 | dropped | precision | clusters lost whole |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        lowest = row["recall_by_similarity"].get("0.8", [0, 1.0])
        lines.append(
            f"| {row['documents']:,} | {row['planted']:,} | {row['recall']:.2%} | {lowest[1]:.2%} "
            f"| {row['dropped']:,} | {row['precision']:.2%} | {row['clusters_lost_whole']} |"
        )
    return lines
