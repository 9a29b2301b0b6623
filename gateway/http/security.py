"""What every answer tells browsers, so that none makes more of it than it is."""

from __future__ import annotations

_PAGES = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc"})
"""They load scripts and styles of the gateway's own. They hold nothing of a request's."""
_COMMON = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_NOTHING = b"default-src 'none'; frame-ancestors 'none'"
_SWAGGER = (
    b"default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self' 'unsafe-inline'; "
    b"style-src 'self' 'unsafe-inline'; worker-src blob:; frame-ancestors 'none'; base-uri 'none'"
)
_ONLY_TLS = (b"strict-transport-security", b"max-age=31536000")

Headers = tuple[tuple[bytes, bytes], ...]


class SecurityHeaders:
    def __init__(self, *, tls: bool) -> None:
        """`tls`: whether the gateway itself is reached by TLS; what stands before it says so itself."""
        end = (_ONLY_TLS,) if tls else ()
        self.plain: Headers = (*_COMMON, (b"content-security-policy", _NOTHING), *end)
        self._page: Headers = (*_COMMON, (b"content-security-policy", _SWAGGER), *end)

    def of(self, path: str) -> Headers:
        return self._page if path in _PAGES else self.plain
