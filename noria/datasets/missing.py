"""Step `missing`: documents that lack a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from noria.datasets.texts import Mask, Opened, Texts


def missing(columns: Mapping[str, Sequence[str]], fill: str | None) -> Opened:
    """Drop the documents whose field is empty or not there, by source, or give it the value `fill`.

    The text stays as it is: it never told of an empty field.
    """

    def step(texts: Texts) -> Texts:
        kept = np.ones(len(texts), dtype=bool)
        for source, names in columns.items():
            for name in names:
                lacking = _lacking(texts, source, name)
                if not lacking.any():
                    continue
                if fill is None:
                    kept &= ~lacking
                else:
                    texts = _filled(texts, lacking, name, fill)
        return texts.only(kept)

    return lambda: step


def _lacking(texts: Texts, source: str, name: str) -> Mask:
    import pyarrow.compute as pc

    here: Mask = np.array(pc.equal(texts.source, source), dtype=bool)
    said = np.asarray(pc.and_(pc.equal(texts.names, name), pc.match_substring_regex(texts.values, r"[^\s]")))
    here[texts.owner[said]] = False
    return here


def _filled(texts: Texts, lacking: Mask, name: str, fill: str) -> Texts:
    import pyarrow as pa
    import pyarrow.compute as pc

    mine = lacking[texts.owner] & np.asarray(pc.equal(texts.names, name))
    values = pc.if_else(pa.array(mine), fill, texts.values)
    absent = lacking.copy()
    absent[texts.owner[mine]] = False
    new = np.flatnonzero(absent)
    return replace(
        texts,
        strings=pa.concat_arrays([texts.text, values, pa.array([fill] * len(new), pa.string())]),
        slot=len(texts) + np.arange(len(values) + len(new)),
        owner=np.concatenate([texts.owner, new]),
        names=pa.concat_arrays([texts.names, pa.array([name] * len(new), pa.string())]),
        given=pa.concat_arrays([texts.given, pa.nulls(len(new), pa.string())]),
    )
