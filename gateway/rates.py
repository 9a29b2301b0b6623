"""How many requests each key may still make: counted in this process, or in Redis for several gateways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from gateway.metrics import Metrics
from gateway.settings import InvalidSettings

if TYPE_CHECKING:
    from redis.asyncio import BlockingConnectionPool

_log = structlog.get_logger(__name__)
_AWAY = (StorageError, OSError, TimeoutError)
"""What a Redis raises that is away, slow or full."""
_PATIENCE_S = 0.2
"""Longest that a request waits for Redis."""
_PAUSE_S = 1.0
"""For which it is not asked again: else one that hangs would delay every request."""
_CONNECTIONS = 32


@dataclass(frozen=True)
class Allowance:
    """What a key may do after a request."""

    granted: bool
    """Whether that request was within the rate; one that was not is not counted."""
    most: int
    window_s: int
    left: int
    more_s: float
    """Until there is more."""


class Rates:
    """A sliding window for each name: as much in any time as the rate says, not twice as much around a full minute.

    Without Redis each process counts its own requests, and has its share. While Redis is away each counts like that,
    too: a limit that is a little off is better than none, and than no service.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        share: Callable[[int], int],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`share`: the part of this process of what all may have. Raises InvalidSettings: Redis' client is missing."""
        self._share = share
        self._metrics = metrics
        self._clock = clock
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._pool = _open_pool(redis_url) if redis_url else None
        self._shared = None if self._pool is None else _in_redis(redis_url, self._pool)
        self._again_s = float("-inf")
        self._away = False

    async def take(self, name: str, rate: str) -> Allowance:
        """Count a request of all keys of that name together."""
        whole = _item(rate)
        if self._shared is not None:
            if (allowance := await self._in_redis(self._shared, name, whole)) is not None:
                return allowance
            self._metrics.rates_not_shared.inc()
        return await _count(self._own, name, type(whole)(self._share(whole.amount)))

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def _in_redis(
        self, shared: SlidingWindowCounterRateLimiter, name: str, item: RateLimitItem
    ) -> Allowance | None:
        """None: Redis is away."""
        if self._clock() < self._again_s:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                allowance = await _count(shared, name, item)
        except _AWAY as error:
            self._again_s = self._clock() + _PAUSE_S
            if not self._away:
                reason = str(error) or type(error).__name__
                _log.error("redis_away", reason=reason, detail="Each process counts the requests of a key by itself.")
            self._away = True
            return None
        if self._away:
            _log.info("redis_back")
        self._away = False
        return allowance


async def _count(limiter: SlidingWindowCounterRateLimiter, name: str, item: RateLimitItem) -> Allowance:
    granted = await limiter.hit(item, name)
    more_at_s, left = await limiter.get_window_stats(item, name)
    return Allowance(granted, item.amount, item.get_expiry(), left, max(0.0, more_at_s - time.time()))


@lru_cache(1024)
def _item(rate: str) -> RateLimitItem:
    return parse(rate)


def _open_pool(url: str) -> BlockingConnectionPool:
    try:
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"TANDEM_RATE_LIMIT__STORAGE_URL names Redis, and its client is missing ({error}). "
            "Install it: pip install 'tandem-serving[redis]'."
        ) from error
    # A connection that was closed meanwhile is opened again at once: the default waits for up to seconds in between.
    once = Retry(NoBackoff(), 1)
    return BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, timeout=_PATIENCE_S, retry=once)


def _in_redis(url: str, pool: BlockingConnectionPool) -> SlidingWindowCounterRateLimiter:
    storage = RedisStorage(
        f"async+{url}",
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix="tandem",
        connection_pool=pool,  # type: ignore[arg-type]  # its annotation forgets it
    )
    return SlidingWindowCounterRateLimiter(storage)
