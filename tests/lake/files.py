"""Small good files of every kind, made here so that no test needs one from elsewhere."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

Text = tuple[float, float, str]
"""Size of type, height on the page in points, and what stands there."""


def pdf(pages: Sequence[Sequence[Text]], outline: Sequence[tuple[str, int]] = (), locked: bool = False) -> bytes:
    """A PDF with these texts; `outline` names titles and their pages, from 0."""
    objects: dict[int, str] = {3: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"}
    numbers = [10 + 2 * page for page in range(len(pages))]
    for number, texts in zip(numbers, pages, strict=True):
        drawn = "".join(f"BT /F1 {size} Tf 72 {height} Td ({text}) Tj ET\n" for size, height, text in texts)
        objects[number] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {number + 1} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects[number + 1] = f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream"
    objects[2] = f"<< /Type /Pages /Kids [{' '.join(f'{n} 0 R' for n in numbers)}] /Count {len(numbers)} >>"
    objects[1] = "<< /Type /Catalog /Pages 2 0 R /Outlines 4 0 R >>"
    marks = [1000 + mark for mark in range(len(outline))]
    objects[4] = f"<< /Type /Outlines /First {marks[0]} 0 R /Last {marks[-1]} 0 R >>" if marks else "<< >>"
    for number, (title, page) in zip(marks, outline, strict=True):
        following = f" /Next {number + 1} 0 R" if number + 1 in marks else ""
        objects[number] = f"<< /Title ({title}) /Parent 4 0 R /Dest [{numbers[page]} 0 R /XYZ 0 800 0]{following} >>"
    objects[5] = f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'41' * 32}> /U <{'42' * 32}> >>"
    parts, places = [b"%PDF-1.4\n"], {}
    for number in sorted(objects):
        places[number] = sum(map(len, parts))
        parts.append(f"{number} 0 obj\n{objects[number]}\nendobj\n".encode("latin-1"))
    table = sum(map(len, parts))
    rows = "".join(f"{number} 1\n{places[number]:010d} 00000 n \n" for number in sorted(places))
    secret = f" /Encrypt 5 0 R /ID [<{'43' * 16}> <{'43' * 16}>]" if locked else ""
    end = f"xref\n0 1\n0000000000 65535 f \n{rows}trailer << /Size {max(places) + 1} /Root 1 0 R{secret} >>\n"
    return b"".join(parts) + f"{end}startxref\n{table}\n%%EOF\n".encode()


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """A ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


def docx() -> bytes:
    """A Word document with headings, a list, a table, an insertion and a deletion."""
    from docx import Document
    from docx.oxml import parse_xml

    document = Document()
    document.add_paragraph("Before any heading.")
    document.add_heading("1. Wie zahle ich?", 1)
    document.add_paragraph("Bar oder mit Karte.")
    document.add_paragraph("Bargeld", style="List Bullet")
    table = document.add_table(2, 2)
    for cell, text in zip(
        [cell for row in table.rows for cell in row.cells], ["Größe", "Preis", "L", "€3"], strict=True
    ):
        cell.text = text
    document.add_heading("Returns", 2)
    spaces = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    changed = document.add_paragraph("Within ")
    changed._p.append(parse_xml(f'<w:del {spaces} w:id="1"><w:r><w:delText>20</w:delText></w:r></w:del>'))
    changed._p.append(parse_xml(f'<w:ins {spaces} w:id="2"><w:r><w:t>30 days</w:t></w:r></w:ins>'))
    document.add_heading("Empty", 2)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def table() -> pa.Table:
    """Two rows of many types."""
    return pa.table(
        {
            "id": pa.array(["007", "008"]),
            "n": pa.array([1, None], pa.int64()),
            "tags": pa.array([["a", "ü"], []]),
        }
    )


def parquet(made: pa.Table | None = None, rows: int = 1) -> bytes:
    """A Parquet file, `rows` a group."""
    out = io.BytesIO()
    pq.write_table(table() if made is None else made, out, row_group_size=rows)
    return out.getvalue()


def arrow(made: pa.Table | None = None) -> bytes:
    """An Arrow stream, as `datasets.save_to_disk` writes."""
    made = table() if made is None else made
    out = io.BytesIO()
    with pa.ipc.new_stream(out, made.schema) as writer:
        writer.write_table(made)
    return out.getvalue()


MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hola, ¿qué tal?"},
    {"role": "assistant", "content": "Bien."},
    {"role": "user", "content": "¿Y mi pedido?"},
    {"role": "assistant", "content": "Llega mañana."},
]
OPENAI = json.dumps({"messages": MESSAGES}, ensure_ascii=False).encode()
WHATSAPP = """\
12.03.24, 14:05 - Nachrichten sind Ende-zu-Ende-verschlüsselt.
12.03.24, 14:05 - Anna: Hallo!
Wo ist mein Paket?
12.03.24, 14:06 - Mühle: Unterwegs.
12.03.24, 14:07 - Anna: <Medien ausgeschlossen>
13.03.24, 09:00 - Mühle: Ist es da?
13.03.24, 09:05 - Anna: Ja. Kann ich es umtauschen?
13.03.24, 09:06 - Mühle: Klar.
""".encode()
DAY = [
    {"type": "message", "subtype": "channel_join", "user": "U1", "text": "<@U1> has joined", "ts": "1700000000.0"},
    {"user": "U1", "text": "Where is &lt;it&gt;?", "ts": "1700000001.0", "thread_ts": "1700000001.0"},
    {"type": "message", "user": "U9", "text": "Other thread", "ts": "1700000002.0", "thread_ts": "1700000002.0"},
    {
        "type": "message", "user": "U2", "text": "<@U1> see <https://x.example/a|here> in <#C1|help>",
        "ts": "1700000003.0", "thread_ts": "1700000001.0",
    },
]  # fmt: skip
SLACK = archive(
    {"users.json": "[]", "help/2023-11-14.json": json.dumps(DAY[:3]), "help/2023-11-15.json": json.dumps(DAY[3:])}
)
MBOX = b"""\
From ann@x.example Thu Jan  4 10:00:00 2024
From: Ann <ann@x.example>
Subject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=
Message-ID: <1@x.example>
Date: Thu, 04 Jan 2024 10:00:00 +0100

Which size?

>From here I cannot tell.
-- 
Ann, +49 30 123456

From help@y.example Thu Jan  4 11:00:00 2024
From: Help <help@y.example>
Subject: Re: =?utf-8?q?Gr=C3=B6=C3=9Fe?=
Message-ID: <2@y.example>
In-Reply-To: <1@x.example>
Date: Thu, 04 Jan 2024 11:00:00 +0100
Content-Type: text/html; charset=utf-8

<p>Size <b>L</b>.</p><div class="gmail_quote">On Thursday Ann wrote:<blockquote>Which size?</blockquote></div>

From ann@x.example Thu Jan  4 12:00:00 2024
From: Ann <ann@x.example>
Message-ID: <3@x.example>
References: <1@x.example> <2@y.example>
Date: Thu, 04 Jan 2024 12:00:00 +0100

Am 4. Januar schrieb Help:
> Size L.

Danke!
"""
XML = """\
<?xml version="1.0" encoding="utf-8"?>
<shop xmlns="urn:shop"><title>Shop</title>
<item id="1"><name>Löffel &amp; Co</name><price currency="EUR">3.50</price><tag>x</tag><tag>y</tag>
<maker><town>Köln</town></maker><note>Very <b>nice</b> one</note></item>
<item id="2"><name>Bol</name></item></shop>
""".encode()
MARKDOWN = b"""\
---
title: Shop
---
Before.

# 1. How do I `pay`? {#pay}

By **card**.

```sh
# no heading
```

Returns
-------

- within 30 days
"""
PAGES = pdf([[(20, 760, "Paying"), (10, 730, "By card or cash."), (20, 700, "Returns"), (10, 670, "In 30 days.")]])
FILES: Mapping[str, Sequence[bytes]] = {
    "chat": [
        OPENAI,
        WHATSAPP,
        SLACK,
        json.dumps(DAY).encode(),
        OPENAI + b"\n" + OPENAI,
        arrow(pa.table({"messages": [MESSAGES]})),
    ],
    "csv": [b"a,b\n1,2\n"],
    "docx": [docx()],
    "html": [b"<h1>A</h1><p>b</p>"],
    "huggingface": [arrow()],
    "json": [b'[{"a": "1"}]'],
    "jsonl": [b'{"a": "1"}\n'],
    "markdown": [MARKDOWN],
    "mbox": [MBOX],
    "parquet": [parquet()],
    "pdf": [PAGES],
    "text": [b"A.\n\nB.\n"],
    "tsv": [b'a\tb\n"1\t2"\t3\n'],
    "xml": [XML],
    "yaml": [b"- {a: 1}\n"],
}
"""Good files by kind of source."""
