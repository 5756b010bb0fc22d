"""The language of texts: the same answers as py3langid's own, a batch at a time."""

from __future__ import annotations

import pyarrow as pa
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from noria.datasets.language import Model, check, count, language
from noria.datasets.texts import of, ready, through
from noria.errors import Invalid

pytestmark = pytest.mark.slow

TEXTS = [
    "Guten Tag, wie geht es Ihnen heute? Meine Bestellung ist noch nicht da.",
    "Bonjour, où est ma commande ? Je l'attends depuis deux semaines déjà.",
    "Where is my order? I have been waiting for two weeks now, please help.",
    "Πού είναι η παραγγελία μου; Περιμένω εδώ και δύο εβδομάδες.",
    "أين طلبي؟ لقد انتظرت أسبوعين حتى الآن.",
    "我的订单在哪里？我已经等了两个星期了。",
    "คำสั่งซื้อของฉันอยู่ที่ไหน ฉันรอมาสองสัปดาห์แล้ว",
    "BONJOUR TOUT LE MONDE, C'EST MOI",
    "ok",
    "",
    "cafe\u0301 " * 200,
]


def test_it_answers_as_the_model_itself() -> None:
    reference = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model = Model()
    found, sure = model.classify(pa.array(TEXTS), 200)
    for text, number, probability in zip(TEXTS, found.tolist(), sure.tolist(), strict=True):
        code, expected = reference.classify(text[:200])
        assert (model.codes[number], probability) == (code, pytest.approx(float(expected), abs=1e-4))
    alone = [model.classify(pa.array([text]), 200)[1][0] for text in TEXTS]
    assert sure.tolist() == pytest.approx([float(probability) for probability in alone], abs=1e-5)


def test_texts_are_counted_by_the_step_s_own_rules() -> None:
    counted = count(iter(TEXTS))
    assert sum(counted.values()) == len(TEXTS)
    found, sure = Model().classify(pa.array(TEXTS), 200)
    assert counted["und"] == sum(each < 0.5 for each in sure.tolist())
    assert counted["de"] == 1
    assert next(iter(counted.values())) == max(counted.values())
    assert len(found) == len(TEXTS)


def test_languages_that_are_wanted_stay_and_those_not_known_as_asked() -> None:
    batch = pa.record_batch({"source": ["s"] * len(TEXTS), "text": TEXTS, "fields": ["{}"] * len(TEXTS)})

    def kept(unsure: str) -> list[str]:
        step = language(["de", "en", "el"], 0.6, unsure, 200)
        found: list[str] = through(ready([step]), of(batch))[0].text.to_pylist()
        return found

    assert kept("drop") == [TEXTS[0], TEXTS[2], TEXTS[3]]
    assert {"ok", ""} <= set(kept("keep"))
    assert TEXTS[1] not in kept("keep")


def test_an_unknown_language_is_told() -> None:
    check(["de", "en"], "noria.toml:1")
    with pytest.raises(Invalid, match="cannot tell language 'qq'"):
        check(["de", "qq"], "noria.toml:1")
