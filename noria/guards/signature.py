"""That somebody with the project's key has vouched for a file: HMAC-SHA256 (RFC 2104) beside it."""

from __future__ import annotations

import hashlib
import hmac

SUFFIX = ".sig"


def sign(key: bytes, data: bytes) -> str:
    """The signature of these bytes: 64 hexadecimal digits."""
    return hmac.new(key, data, hashlib.sha256).hexdigest()


def verified(key: bytes, data: bytes, signature: str) -> bool:
    """Whether the signature is that of these bytes; takes the same time whichever digit is wrong."""
    return hmac.compare_digest(sign(key, data).encode(), signature.strip().encode())
