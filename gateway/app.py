"""The application: wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from gateway.catalogue import Catalogue
from gateway.database import Database
from gateway.environment import Environment
from gateway.evidence import Evidence
from gateway.health import Health
from gateway.http import problems
from gateway.http.comparison import ComparisonRoutes
from gateway.http.context import RequestContextMiddleware
from gateway.http.jobs import JobRoutes
from gateway.http.keys import load_or_create_admin_key
from gateway.http.models import ModelRoutes
from gateway.http.routes import Routes
from gateway.http.routing import RoutingRoutes
from gateway.jobs import Jobs
from gateway.metrics import Metrics
from gateway.policies import Policies
from gateway.reconciler import Reconciler
from gateway.router import Router
from gateway.routing import Fixed, Target
from gateway.runtimes.base import Runtime
from gateway.runtimes.opening import open_runtimes
from gateway.service import Service
from gateway.settings import Settings
from gateway.shadow import Shadows
from gateway.spans import Tracer
from gateway.statistics import Statistics
from modelkit.spec import RuntimeName


def create_app(
    settings: Settings, runtimes: Mapping[RuntimeName, Runtime] | None = None, evidence: Evidence | None = None
) -> FastAPI:
    """The gateway as an ASGI application. `runtimes` takes the place of the real workers, `evidence` that of the
    statistics' process."""
    metrics = Metrics(CollectorRegistry())
    metrics.build_info.labels(version("tandem-serving")).set(1)
    catalogue = Catalogue(settings.store)
    admin_key = load_or_create_admin_key(settings.admin_key_file)
    tracer = _open_tracer(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        workers = runtimes or open_runtimes(settings, metrics)
        shadows = Shadows(settings.shadow, runtimes=workers, catalogue=catalogue, metrics=metrics)
        service = Service(settings, runtimes=workers, shadows=shadows, metrics=metrics)
        database = Database(settings.database)
        policies = Policies(database, Fixed(policy="fixed", target=Target(settings.default_runtime)))
        await policies.refresh()
        routing = Router(catalogue, policies, metrics=metrics)
        health = Health(workers, warm_up_requests=settings.warm_up_requests)
        reconciler = Reconciler(catalogue, health, workers, store=settings.store, view=settings.serving)
        models = ModelRoutes(settings.store, catalogue=catalogue, health=health, admin_key=admin_key)
        routes = Routes(
            settings,
            service=service,
            routing=routing,
            catalogue=catalogue,
            health=health,
            metrics=metrics,
            admin_key=admin_key,
        )
        jobs = Jobs(settings.store, settings.serving)
        statistics = Statistics(settings.database, Environment(settings, catalogue).of)
        comparison = ComparisonRoutes(evidence or statistics, catalogue=catalogue, policies=policies)
        app.include_router(models.router)
        app.include_router(JobRoutes(jobs, catalogue=catalogue, admin_key=admin_key).router)
        app.include_router(RoutingRoutes(routing, policies, admin_key=admin_key).router)
        app.include_router(comparison.router)
        app.include_router(routes.router)
        following = [asyncio.create_task(each.run()) for each in (reconciler, policies)]
        yield
        for task in following:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await jobs.close()
        await statistics.close()
        await service.close()
        database.close()
        for worker in workers.values():
            await worker.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="Tandem",
        version=version("tandem-serving"),
        description="One vision model on two runtimes, behind one endpoint.",
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would have the client upload the picture twice
        # FastAPI's own telemetry would send queries and tracebacks, knows neither stages nor our codes, and obeys
        # variables of its own.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    problems.install(app, metrics)
    app.add_middleware(RequestContextMiddleware, internal_error=problems.internal_error, tracer=tracer)
    return app


def _open_tracer(settings: Settings) -> Tracer | None:
    if not settings.tracing.endpoint:
        return None
    from gateway.tracing import Tracing  # here: whoever does not trace need not load OpenTelemetry's SDK

    return Tracing(settings.tracing, version=version("tandem-serving"))
