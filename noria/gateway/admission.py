"""Why a model is not answered for: it does not exist, or this key may not ask it."""

from __future__ import annotations

from noria.errors import Denied, Invalid, NoriaError, NotFound
from noria.gateway.snapshot import Holder, View


def unanswered(model: str, holder: Holder, view: View) -> NoriaError:
    """The error for a model that is absent, unknown or not for this key; it names none that the key may not see."""
    grant = holder.grant
    mine = ", ".join(view.open_to(holder)) or "none"
    if not model:
        return Invalid("'model' is missing or not a string", f'send "model": "…"; known are: {mine}')
    if model not in view.live:
        return NotFound(f"there is no model '{model}'", f"known are: {mine}")
    if grant.models:
        return Denied(f"key '{grant.name}' may not ask '{model}'", f"it may ask: {mine}")
    return Denied(f"a key of role '{grant.role}' may ask tasks only, not '{model}'", "use a developer's key")
