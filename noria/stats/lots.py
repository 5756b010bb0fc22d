"""Lots: numbers that look random and are the same whenever they are asked for. Light enough for the gateway."""

from __future__ import annotations

import hashlib


def drawn(salt: str, identity: str) -> float:
    """A number in [0, 1) that is even over identities and the same whenever it is asked for.

    Under another salt it is another number, independent of the first.
    """
    made = hashlib.sha256(f"{salt}\0{identity}".encode()).digest()
    return (int.from_bytes(made[:8], "big") >> 11) / 2**53
