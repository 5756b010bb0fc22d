"""[registry]: what of the candidates leaves this machine, and for where."""

from __future__ import annotations

from pydantic import Field

from noria.settings.base import LICENCE, Table, Url


class RegistrySettings(Table):
    """[registry]: model versions go to [runtime] tracking; anything further only where `share` allows it."""

    share: bool = False
    """Allows `noria registry push` and `pull`: a hub, a bucket or a folder may be written and read."""
    hub: Url = "https://huggingface.co"
    """Address of the hub behind `hf://`; its token is the variable HF_TOKEN."""
    private: bool = True
    """Repositories that a push makes on the hub are private."""
    storage: dict[str, str | int | bool] = Field(default_factory=dict)
    """Options of a bucket's driver, as fsspec names them, such as endpoint_url; keys belong in the environment."""
    licence: str | None = Field(default=None, pattern=LICENCE)
    """Licence of what is made here, as the hub names it; a card says `other` without one."""
