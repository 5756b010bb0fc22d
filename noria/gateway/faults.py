"""An engine's refusal as the client is told of it: the engine's own status and words."""

from __future__ import annotations

import orjson

from noria.gateway.wire import EngineFault

TEMPORARY = (502, 503, 504)


def engine_fault(status: int, body: bytes) -> EngineFault:
    """The fault in an answer that has not status 200."""
    message, kind = said(body)
    if status in (401, 403, 404):
        # These would tell the client that its own key or model is wrong.
        return EngineFault(502, f"the engine refused the gateway with status {status}: {message}")
    if status < 400:
        return EngineFault(502, f"the engine answered with status {status}")
    fault = EngineFault(status, message, kind)
    fault.passing = status in TEMPORARY
    return fault


def said(body: bytes) -> tuple[str, str]:
    """Message and type in an engine's error, in whichever of the usual shapes it has."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:500].decode(errors="replace").strip() or "the engine gave no reason", "engine_error"
    if isinstance(found, dict):
        inner = found.get("error", found)
        if isinstance(inner, str):
            return inner, "engine_error"
        if isinstance(inner, dict):
            kind = inner.get("type")
            message = inner.get("message") or inner.get("detail") or "the engine gave no reason"
            return str(message), kind if isinstance(kind, str) else "engine_error"
    return str(found)[:500], "engine_error"
