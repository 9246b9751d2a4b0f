"""Defines the HTTP interface of a served model: /health, /model and /translate, which returns a derived series."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from medgan.server.alias_watcher import Follower
from medgan.server.auth import is_authorized
from medgan.server.request_queue import AGAIN_S, RequestQueue, Work, as_refusal
from medgan.server.upload import Limits, Refusal, refuse_large

VERSION_HEADER = "Medgan-Model-Version"
NAME_HEADER = "Medgan-Model-Name"
SEND_S = 600.0  # until a client has taken the answer
MORE = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(AGAIN_S)}}


class AnswerFile(FileResponse):
    """Sends a file, and gives up on a client that takes too long."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file within `SEND_S`."""
        async with asyncio.timeout(SEND_S):
            await super().__call__(scope, receive, send)


def build_app(follower: Follower, queue: RequestQueue, *, limits: Limits, digest: str) -> FastAPI:
    """Returns the HTTP interface of a model.

    Args:
        digest: digest of the bearer token.
    """
    app = FastAPI(title="medgan", docs_url=None, redoc_url=None, openapi_url=None)

    async def authorized(request: Request) -> None:
        if not is_authorized(request.headers.get("authorization", ""), digest):
            raise Refusal("E-SERVER-01", status=401)

    async def admitted(request: Request) -> AsyncIterator[Work]:
        refuse_large(int(request.headers.get("content-length", "0") or 0), limits)
        work = queue.take_in()
        try:
            yield work
        finally:
            work.end()

    @app.get("/health")
    async def health() -> JSONResponse:
        facts, lost = follower.current.facts, follower.current.network.problem()
        state = {"model": facts.name, "version": facts.version, "problem": lost or follower.problem}
        if lost:
            return JSONResponse({"status": "restarting", **state}, 503, MORE[503])
        return JSONResponse({"status": "serving", **state})

    @app.get("/model", dependencies=[Depends(authorized)])
    async def model() -> dict[str, Any]:
        return _described(follower)

    @app.post("/translate", dependencies=[Depends(authorized)], response_class=AnswerFile)
    async def translate(request: Request, work: Work = Depends(admitted)) -> Response:  # noqa: B008 - as FastAPI requires
        path, served = await queue.serve(request, work)
        headers = {NAME_HEADER: served.facts.name, VERSION_HEADER: served.facts.version}
        return AnswerFile(path, media_type="application/zip", headers=headers)

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse({"detail": str(refusal), "code": refusal.code}, refusal.status, MORE.get(refusal.status))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return await refused(request, as_refusal(error))

    return app


def _described(follower: Follower) -> dict[str, Any]:
    """Describes the version being served, for people and programs."""
    served, problem, note = follower.current, follower.problem, follower.note
    facts, task = served.facts, served.input.task
    return {
        "name": facts.name,
        "version": facts.version,
        "weights_sha256": facts.digest,
        "task": task.name,
        "source": {"modality": task.source.modality, "unit": task.source.unit},
        "target": {"modality": task.target.modality, "unit": task.target.unit},
        "spacing_mm": served.manifest.spacing_mm,
        "size": served.manifest.size,
        "data_digest": served.manifest.data_digest,
        "intended_use": served.manifest.intended_use,
        "card": served.card,
        "problem": problem,
        "note": note,
    }
