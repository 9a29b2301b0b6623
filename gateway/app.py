"""The application: wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from starlette.types import Scope

from gateway.canary import Canaries
from gateway.catalogue import Catalogue
from gateway.database import Database
from gateway.disagreements import Disagreements
from gateway.environment import Environment
from gateway.evidence import Evidence
from gateway.health import Health
from gateway.http import description, problems
from gateway.http.comparison import ComparisonRoutes
from gateway.http.context import RequestContext, RequestContextMiddleware
from gateway.http.disagreements import DisagreementRoutes
from gateway.http.jobs import JobRoutes
from gateway.http.keys import Guard
from gateway.http.models import ModelRoutes
from gateway.http.routes import Routes
from gateway.http.routing import RoutingRoutes
from gateway.http.scaling import ScalingRoutes
from gateway.http.turnstile import Turnstile
from gateway.job_files import JobFiles
from gateway.jobs import Jobs
from gateway.keys import Keys
from gateway.latencies import Latencies
from gateway.metrics import Metrics
from gateway.policies import Policies
from gateway.pulse import Pulse
from gateway.rates import Rates
from gateway.reconciler import Reconciler
from gateway.recording import RequestLog
from gateway.router import Router
from gateway.routing import Fixed, Target
from gateway.runtimes import tls
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
    statistics' process. Raises InvalidSettings, InvalidKeyFile."""
    tls.check(settings)
    metrics = Metrics(CollectorRegistry())
    metrics.build_info.labels(version("tandem-serving")).set(1)
    catalogue = Catalogue(settings.store)
    keys = Keys(
        settings.admin_key_file,
        settings.keys_file,
        required=settings.keys.required,
        named=bool(settings.keys.file),
        metrics=metrics,
    )
    rates = Rates(settings.rate_limit.storage_url, share=settings.share, metrics=metrics)
    guard = Guard(keys, rates, metrics)
    tracer = _open_tracer(settings)
    database = Database(settings.database)
    request_log = RequestLog(settings.request_log, settings.database, metrics=metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        workers = runtimes or open_runtimes(settings, metrics, lambda model: catalogue.specs.get(model))
        latencies = Latencies()
        health = Health(workers, warm_up_requests=settings.warm_up_requests)
        disagreements = Disagreements(settings.disagreements, database, metrics=metrics)
        shadows = Shadows(
            settings.shadow,
            runtimes=workers,
            catalogue=catalogue,
            latencies=latencies,
            disagreements=disagreements,
            health=health,
            metrics=metrics,
            log=request_log,
        )
        service = Service(
            settings,
            runtimes=workers,
            shadows=shadows,
            latencies=latencies,
            disagreements=disagreements,
            health=health,
            metrics=metrics,
            log=request_log,
        )
        policies = Policies(database, Fixed(policy="fixed", target=Target(settings.default_runtime)))
        await policies.refresh()
        request_log.start()
        routing = Router(catalogue, policies, health=health, latencies=latencies, metrics=metrics)
        statistics = Statistics(settings.database, Environment(settings, catalogue).of)
        canaries = Canaries(
            policies, catalogue=catalogue, database=database, evidence=evidence or statistics, metrics=metrics
        )
        reconciler = Reconciler(catalogue, health, workers, store=settings.store, view=settings.serving)
        models = ModelRoutes(settings.store, catalogue=catalogue, health=health, guard=guard)
        routes = Routes(
            settings,
            service=service,
            routing=routing,
            catalogue=catalogue,
            health=health,
            metrics=metrics,
            guard=guard,
        )
        jobs = Jobs(settings.store, settings.serving, JobFiles(settings.jobs))
        comparison = ComparisonRoutes(evidence or statistics, catalogue=catalogue, policies=policies, guard=guard)
        app.state.turnstile = Turnstile(settings.limits, guard=guard, routing=routing, service=service, metrics=metrics)
        app.include_router(routes.router)  # the first are found first, and these are asked the most
        app.include_router(models.router)
        app.include_router(JobRoutes(jobs, catalogue=catalogue, guard=guard).router)
        app.include_router(ScalingRoutes(workers, catalogue=catalogue, guard=guard).router)
        app.include_router(RoutingRoutes(routing, policies, guard=guard).router)
        app.include_router(
            DisagreementRoutes(disagreements, threads=service.threads, limits=settings.limits, guard=guard).router
        )
        app.include_router(comparison.router)
        following = [
            asyncio.create_task(each.run())
            for each in (reconciler, policies, canaries, disagreements, keys, Pulse(metrics))
        ]
        yield
        for task in following:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await jobs.close()
        await statistics.close()
        await service.close()
        await canaries.close()
        await rates.close()
        await asyncio.to_thread(request_log.close)
        database.close()
        for worker in workers.values():
            await worker.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)

    app = FastAPIOffline(
        title="Tandem",
        version=version("tandem-serving"),
        description="One vision model on two runtimes, behind one endpoint.",
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would have the client upload the picture twice
        # FastAPI's own telemetry would send queries and tracebacks, knows neither stages nor our codes, and obeys
        # variables of its own.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.metrics = metrics
    app.state.draining = False

    def refuse(scope: Scope, context: RequestContext) -> Response | None:
        turnstile: Turnstile = app.state.turnstile  # there since the application started
        return turnstile.refuse(scope, context)

    problems.install(app, metrics)
    description.complete(app)
    app.add_middleware(
        RequestContextMiddleware,
        internal_error=problems.internal_error,
        tracer=tracer,
        refuse=refuse,
        tls=bool(settings.http.tls_certificate),
    )
    return app


def _open_tracer(settings: Settings) -> Tracer | None:
    if not settings.tracing.endpoint:
        return None
    from gateway.tracing import Tracing  # here: whoever does not trace need not load OpenTelemetry's SDK

    return Tracing(settings.tracing, version=version("tandem-serving"))
