"""The finished table of documents: parts by ranges of ids, each sorted, written by the workers of the engine.

Parts and their bytes depend on the documents only, however the engine cut its work; read in the order of their names
they are one table in order of ids. A small table is one file.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from noria.datasets.schema import DOCUMENTS
from noria.datasets.texts import Batches

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PART_ROWS, PART_BYTES = 1 << 15, 1 << 26
"""A part has no more documents and bytes of texts and fields than these, as long as ids are spread evenly."""

GROUP = 1 << 13
"""Rows of a row group, so that reading one takes little memory."""


def parts_of(rows: int, size: int) -> int:
    """How many parts a table of so many rows and bytes has: a power of two, so that parts can be put together."""
    needed = max(-(-rows // PART_ROWS), -(-size // PART_BYTES), 1)
    return min(1 << (needed - 1).bit_length(), 1 << 16)


def write(spark: SparkSession, cleaned: Path, losers: Sequence[Path], parts: tuple[int, int], table: Path) -> int:
    """Write the documents of the folder `cleaned` that no step dropped and whose ids are not in `losers`.

    `parts` is how many ranges of ids `cleaned` is parted into, and how many the table shall have, which divides it.
    Returns the number of rows.
    """
    _, wanted = parts
    folder = cleaned.with_name("parts")
    folder.mkdir()
    job = _writer(str(cleaned), [str(each) for each in losers], parts, str(folder))
    told = spark.range(wanted).mapInArrow(job, "part long, rows long").collect()
    if wanted == 1:
        (folder / _name(0)).replace(table)
    else:
        folder.replace(table)
    return sum(row["rows"] for row in told)


def _name(part: int) -> str:
    return f"part-{part:05d}.parquet"


def _writer(cleaned: str, losers: Sequence[str], parts: tuple[int, int], out: str) -> Callable[[Batches], Batches]:
    had, wanted = parts

    def files(folder: str) -> list[Path]:
        return sorted(Path(folder).glob("*.parquet")) if Path(folder).is_dir() else []

    def write(batches: Batches) -> Batches:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        def read(folder: str, columns: list[str]) -> list[pa.Table]:
            return [pq.read_table(file, columns=columns, partitioning=None) for file in files(folder)]

        def value(scalar: pa.Scalar) -> str:
            return str(scalar.as_py())

        def left(table: pa.Table, gone: pa.Array) -> pa.Array:
            """The rows that stay, in order of ids."""
            ids = table.column("id").combine_chunks()
            # Of the ids that are gone only those among this part's: their number would count for each part.
            ends = pc.min_max(ids).as_py()
            first = bisect_left(gone, ends["min"] or "", key=value)
            last = bisect_right(gone, ends["max"] or "", lo=first, key=value)
            lost = pc.is_in(ids, value_set=gone.slice(first, last - first))
            rows = pc.indices_nonzero(pc.and_not(pc.is_null(table.column("dropped").combine_chunks()), lost))
            return rows.take(pc.sort_indices(ids.take(rows)))

        nothing = DOCUMENTS.empty_table().replace_schema_metadata(None)
        nothing = nothing.append_column("dropped", pa.array([], pa.int32()))
        ids = [table.column("id").cast(pa.string()) for folder in losers for table in read(folder, ["id"])]
        gone = pa.chunked_array([chunk for each in ids for chunk in each.chunks], pa.string()).combine_chunks()
        gone = gone.take(pc.sort_indices(gone))
        for batch in batches:
            numbers = batch.column(0).to_pylist()
            rows = []
            for part in numbers:
                ranges = range(part * had // wanted, (part + 1) * had // wanted)
                folders = [cleaned] if had == 1 else [f"{cleaned}/bucket={each}" for each in ranges]
                tables = (table for folder in folders for table in read(folder, [*DOCUMENTS.names, "dropped"]))
                whole = pa.concat_tables([nothing, *tables]).combine_chunks()
                order = left(whole, gone)
                whole = whole.select(DOCUMENTS.names)
                rows.append(len(order))
                made, place = Path(out, f".{_name(part)}.made"), Path(out, _name(part))
                with pq.ParquetWriter(made, DOCUMENTS, compression="zstd") as file:
                    # Group by group, so that no second copy of all is held.
                    for start in range(0, max(len(order), 1), GROUP):
                        file.write_table(whole.take(order[start : start + GROUP]).cast(DOCUMENTS))
                # A task that is run twice writes the same bytes: whichever comes last may stay.
                made.replace(place)
            yield pa.RecordBatch.from_arrays(
                [pa.array(numbers, pa.int64()), pa.array(rows, pa.int64())], ["part", "rows"]
            )

    return write
