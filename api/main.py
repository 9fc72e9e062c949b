"""The HTTP interface as one application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

from api.documentation import describe
from api.edge import Edge
from api.meters import Meters
from api.problems import add_problem_handlers
from api.resources import LifespanState, close_resources, open_resources
from api.routers import (
    architectures,
    datasets,
    docs,
    events,
    health,
    jobs,
    keys,
    layers,
    metrics,
    models,
    nodes,
    predict,
    recalibration,
    verification,
)
from core.settings import Settings

WORKER_THREADS = 20
"""Handlers at work at once; fewer than the database's pool holds, so that none waits for a connection."""
SPARE_CONNECTIONS = 5  # for streams
DESCRIPTION = (
    "Training as a service for batch-normalized networks: jobs that lose nothing, "
    "answers from frozen population statistics."
)


def create_app(settings: Settings) -> FastAPI:
    """The application. Nothing is opened before it starts."""
    meters = Meters()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[LifespanState]:
        connections = settings.database_pool_size + settings.database_pool_overflow
        current_default_thread_limiter().total_tokens = max(1, min(WORKER_THREADS, connections - SPARE_CONNECTIONS))
        resources = open_resources(settings, meters)
        try:
            yield {"resources": resources}
        finally:
            close_resources(resources)

    app = FastAPI(
        title="evenkeel",
        version=version("evenkeel"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere; ours asks nobody
        redoc_url=None,
    )
    app.add_middleware(Edge, maximum_body_bytes=settings.maximum_body_bytes, meters=meters)
    add_problem_handlers(app)
    for noun in (
        jobs,
        events,
        metrics,
        layers,
        datasets,
        models,
        recalibration,
        verification,
        predict,
        keys,
        architectures,
        nodes,
        health,
        docs,
    ):
        app.include_router(noun.router)
    describe(app)
    return app
