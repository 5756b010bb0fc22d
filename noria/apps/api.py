"""The control plane: status, cycles and lineage over HTTP, for admins and developers."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse

from noria.apps import engine_api, label_api, views
from noria.errors import Denied, NoriaError
from noria.ports import Platform
from noria.registry import lineage
from noria.types import ApiKey


def build(platform: Platform, desk: engine_api.Desk | None = None) -> FastAPI:
    """The application; every path under `/api` wants a key of role admin or developer.

    Without a `desk` there are no engines to look at.
    """
    app = FastAPI(title="noria", docs_url=None, redoc_url=None, openapi_url=None)

    def reader(authorization: Annotated[str, Header()] = "") -> ApiKey:
        digest = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest()
        for key in platform.keys.all():
            if key.sha256 == digest and key.revoked is None and key.role in ("admin", "developer"):
                return key
        raise Denied("this needs a key of role admin or developer", "authorization: Bearer $(cat .noria/admin.key)")

    @app.exception_handler(NoriaError)
    async def refused(_: Request, error: NoriaError) -> JSONResponse:
        body = {"error": {"message": f"{error.fact}. {error.hint}", "type": error.code, "code": error.code}}
        return JSONResponse(body, status_code=error.status)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/status", dependencies=[Depends(reader)])
    def status() -> dict[str, Any]:
        return views.status(platform)

    @app.get("/api/why/{identity}", dependencies=[Depends(reader)])
    def why(identity: str) -> dict[str, Any]:
        return lineage.explain(platform, identity)

    if desk is not None:
        app.add_api_route("/metrics", partial(engine_api.metrics, platform, desk), response_class=Response)
        app.include_router(engine_api.build(platform, reader, desk))
    app.include_router(label_api.build(platform, reader))
    return app
