"""The HTTP interface as one application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from api.documentation import describe
from api.edge import Edge
from api.inference.hot import HotPath
from api.meters import Meters
from api.packing import Packing
from api.problems import add_problem_handlers
from api.resources import LifespanState, close_resources, open_resources
from api.routers import (
    adapters,
    aliases,
    architectures,
    comparisons,
    datasets,
    docs,
    ensembles,
    events,
    health,
    inference_protocol,
    jobs,
    keys,
    layers,
    metrics,
    models,
    nodes,
    recalibration,
    recipes,
    verification,
)
from api.searches import Searcher
from core.settings import Settings

WORKER_THREADS = 20
"""Handlers at work at once; fewer than the database's pool holds, so that none waits for a connection."""
SPARE_CONNECTIONS = 5  # for streams
TRAINING = (
    jobs,
    comparisons,
    recipes,
    events,
    metrics,
    layers,
    datasets,
    recalibration,
    ensembles,
    keys,
    architectures,
    nodes,
)
SERVING = (models, aliases, verification, inference_protocol, adapters, health, docs)
DESCRIPTION = (
    "Training as a service for batch-normalized networks: jobs that lose nothing, "
    "answers from frozen population statistics."
)


class Application(FastAPI):
    """Its two hot routes are answered before any middleware sees the request."""

    def __init__(self, hot: HotPath, **given: Any) -> None:
        super().__init__(**given)
        self.hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.hot.answers(scope["path"]):
            await self.hot(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings) -> Application:
    """The application. Nothing is opened before it starts."""
    meters = Meters()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[LifespanState]:
        connections = settings.database_pool_size + settings.database_pool_overflow
        current_default_thread_limiter().total_tokens = max(1, min(WORKER_THREADS, connections - SPARE_CONNECTIONS))
        resources = open_resources(settings, meters)
        searcher = Searcher(resources.database, settings) if settings.role == "all" else None
        try:
            yield {"resources": resources}
        finally:
            if searcher is not None:
                searcher.close()
            close_resources(resources)

    app = Application(
        HotPath(settings.maximum_body_bytes, meters),
        title="evenkeel",
        version=version("evenkeel"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere; ours asks nobody
        redoc_url=None,
    )
    app.add_middleware(Packing)
    app.add_middleware(Edge, maximum_body_bytes=settings.maximum_body_bytes, meters=meters)
    add_problem_handlers(app)
    for noun in SERVING if settings.role == "inference" else (*TRAINING, *SERVING):
        app.include_router(noun.router)
    describe(app)
    return app
