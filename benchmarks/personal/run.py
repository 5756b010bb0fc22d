"""What of planted personal data is found, by kind and language, and at what cost; Presidio beside it on a sample.

Writes benchmarks/results/personal.json and prints a table. `--items 500 --sample 0` is a quick look.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.personal.rows import Planted, Row, rows
from noria.guards import personal
from noria.types import Finding

RESULT = Path(__file__).parents[1] / "results" / "personal.json"
CHARS = 650
PROSE = (
    "The parcel came on Monday, but the box was open and the lid had a crack on one side. I took pictures of it "
    "and put them into the form as the guide on your page says; nobody has answered since. My neighbour had the "
    "same kettle and the same trouble, so it may well be the way in which they are packed. Please tell me whether "
    "I can bring it to the shop, or whether somebody picks it up here; in the evening there is always someone at "
    "home. If there is none left in blue, the grey one would be fine too, and otherwise I would like to have my "
    "money back. The rest of the order is as it should be, and the cups are even nicer than in the picture. Many "
    "thanks in advance for help!"
)
Find = Callable[[str], Sequence[Finding]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=1500, help="items that Presidio looks for; 0 leaves it out")
    options = parser.parse_args()
    planted = rows(options.items)
    told: dict[str, Any] = {
        "items": options.items, "rows": len(planted), "languages": dict(Counter(row.language for row in planted)),
        "validated pass": scored(planted, personal.find_all),
        "documents per CPU second": {
            "one row of items in prose, as the gateway looks": speed(padded(planted), personal.find),
            "one row of items in prose, as data is scrubbed": speed(padded(planted), personal.find_all),
            "items in every sentence": speed(documents(planted), personal.find_all),
        },
    }  # fmt: skip
    if options.sample:
        told["sample"] = beside(options.sample)
    before = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    RESULT.write_text(json.dumps({**before, **told}, indent=1, ensure_ascii=False) + "\n")
    show(told)


def scored(planted: Iterable[Row], find: Find, kinds: frozenset[str] | None = None) -> dict[str, Any]:
    """Recall and precision by kind; an item is found when each of its letters and digits lies in a finding."""
    items, hit, named, said, wrong = Counter[str](), Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    makers: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in planted:
        found = [each for each in find(row.text) if kinds is None or each.kind in kinds]
        for item in (each for each in row.planted if kinds is None or each.kind in kinds):
            items[item.kind] += 1
            covered = is_covered(row.text, item, found)
            hit[item.kind] += covered
            named[item.kind] += covered and any(each.kind == item.kind for each in found if _touch(each, item))
            makers[item.maker][0] += 1
            makers[item.maker][1] += covered
        for each in found:
            said[each.kind] += 1
            wrong[each.kind] += not any(_touch(each, item) for item in row.planted)
    right = said.total() - wrong.total()
    return {
        "kinds": {
            kind: {
                "items": items[kind], "recall": ratio(hit[kind], items[kind]), "named": ratio(named[kind], items[kind]),
                "precision": ratio(said[kind] - wrong[kind], said[kind]), "wrong": wrong[kind],
            }
            for kind in sorted(items | said)
        },
        "makers": {
            name: {"items": count, "recall": ratio(good, count)} for name, (count, good) in sorted(makers.items())
        },
        "all": {"recall": ratio(hit.total(), items.total()), "precision": ratio(right, said.total())},
    }  # fmt: skip


def is_covered(text: str, item: Planted, found: Sequence[Finding]) -> bool:
    inside = {at for each in found for at in range(each.start, each.end)}
    return all(at in inside for at in range(item.start, item.end) if text[at].isalnum())


def _touch(found: Finding, item: Planted) -> bool:
    return found.start < item.end and item.start < found.end


def ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def documents(planted: Sequence[Row]) -> list[str]:
    """Rows joined until they have the length of a document."""
    found, text = [], ""
    for row in planted:
        text = f"{text}\n{row.text}" if text else row.text
        if len(text) >= CHARS:
            found.append(text[:CHARS])
            text = ""
    return found


def padded(planted: Sequence[Row]) -> list[str]:
    """Each row followed by prose up to the length of a document."""
    return [f"{row.text} {PROSE}"[:CHARS].ljust(CHARS, ".") for row in planted]


def speed(texts: Sequence[str], find: Find, passes: int = 10) -> int:
    """Documents per CPU second, in the best of several passes over a few: what else runs slows each of them."""
    few = texts[:300]
    best = float("inf")
    for _ in range(passes):
        began = time.process_time()
        for text in few:
            find(text)
        best = min(best, time.process_time() - began)
    return round(len(few) / best)


def beside(count: int) -> dict[str, Any]:
    """Presidio and the validated pass on the same English rows, with names planted too, for the kinds both look for."""
    from noria.backends import presidio

    sample = [row for row in rows(count, seed=11, names=True) if row.language == "en"]
    engine = _presidio()
    kinds = frozenset({"email", "phone", "card", "iban", "ip", "ssn", "name"})
    recognise = presidio.open_recogniser()
    texts = [row.text for row in sample]
    return {
        "rows": len(sample),
        "Presidio, all its patterns and names": scored(sample, engine, kinds),
        "validated pass": scored(sample, personal.find_all, kinds - {"name"}),
        "names by noria[ner]": scored(sample, lambda text: recognise(text, ["name"]), frozenset({"name"})),
        "documents per CPU second": {
            "Presidio": speed(texts, engine, passes=1), "validated pass": speed(texts, personal.find_all),
            "names by noria[ner]": speed(texts, lambda text: recognise(text, ["name"]), passes=1),
        },
    }  # fmt: skip


def _presidio() -> Find:
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    from noria.backends.presidio import MODEL

    names = {
        "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban",
        "IP_ADDRESS": "ip", "US_SSN": "ssn", "PERSON": "name",
    }  # fmt: skip
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    models = [{"lang_code": "en", "model_name": MODEL}]
    nlp = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    engine = AnalyzerEngine(nlp_engine=nlp, supported_languages=["en"])

    def find(text: str) -> list[Finding]:
        return [
            Finding(kind=names[each.entity_type], start=each.start, end=each.end, score=each.score, rule="presidio")
            for each in engine.analyze(text, language="en", entities=list(names))
        ]

    return find


def show(told: dict[str, Any]) -> None:
    table("validated pass, all languages", told["validated pass"]["kinds"])
    for name, value in told["documents per CPU second"].items():
        print(f"{value:>8} documents of {CHARS} characters per CPU second: {name}")
    if sample := told.get("sample"):
        for name in ("Presidio, all its patterns and names", "validated pass", "names by noria[ner]"):
            table(f"{name}, {sample['rows']} English rows", sample[name]["kinds"])
        for name, value in sample["documents per CPU second"].items():
            print(f"{value:>8} rows per CPU second: {name}")


def table(title: str, kinds: dict[str, dict[str, Any]]) -> None:
    print(f"\n{title}\n{'kind':14}{'items':>7}{'recall':>9}{'precision':>11}{'wrong':>7}")
    for kind, each in kinds.items():
        shown = ["" if each[name] is None else f"{each[name]:.4f}" for name in ("recall", "precision")]
        print(f"{kind:14}{each['items']:>7}{shown[0]:>9}{shown[1]:>11}{each['wrong']:>7}")
    print()


if __name__ == "__main__":
    main()
