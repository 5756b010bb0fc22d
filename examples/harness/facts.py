"""How an answer to a fact is scored."""


def contains(doc: dict[str, str], results: list[str]) -> dict[str, float]:
    """1 where the wanted words stand in the answer, else 0; a model that answers in sentences is right too."""
    return {"contains": float(doc["answer"].casefold() in results[0].casefold())}
