"""The keys that are valid now: found by what a request sends, and followed while their files change."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from gateway import admin_key, key_file
from gateway.errors import Unauthenticated
from gateway.file_stamp import file_stamp
from gateway.key_file import ADMIN, InvalidKeyFile, Key, digest, id_of
from gateway.metrics import Metrics

_log = structlog.get_logger(__name__)
_POLL_S = 1.0


class Keys:
    """The admin key, and those in the file of keys, if there is one.

    Where there is one, and where keys are required, nobody predicts or reads without a key. A file that vanishes or
    breaks later leaves the keys that were read last in force: a mistake in it neither opens nor closes the gateway.
    """

    def __init__(
        self,
        admin_key_file: Path,
        path: Path,
        *,
        required: bool,
        named: bool = False,
        metrics: Metrics,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`path` may be missing unless it was `named`. Raises InvalidKeyFile."""
        self._files = {admin_key_file: self._take_admin, path: self._take}
        self._now = now
        self._not_read: set[Path] = set()
        self._not_read_gauge = metrics.keys_not_read
        self._by_id: dict[str, Key] = {}
        self.required = required
        admin_key.load_or_create_admin_key(admin_key_file)
        self._seen = {each: file_stamp(each) for each in self._files}
        self._take_admin(admin_key_file)
        if _is_there(path):
            self._take(path)
        elif named:
            raise InvalidKeyFile(f"TANDEM_KEYS__FILE names {path}, which is not there. `tandem keys add` makes it.")

    def find(self, text: str | None) -> Key:
        """The key that a request sends. Raises Unauthenticated."""
        if not text:
            raise Unauthenticated(
                "This needs a key: send 'Authorization: Bearer <key>'. `tandem keys add` makes one; the admin key is "
                "admin.key in the gateway's var folder."
            )
        sent = digest(text)
        # In constant time, so that no answer's time tells how much of a digest is right.
        for key in (self._by_id.get(id_of(text), self._admin), self._admin):
            if hmac.compare_digest(sent, key.sha256):
                if key.expired(self._now()):
                    raise Unauthenticated(
                        f"The key {key.name!r} has expired. Ask whoever runs the gateway for a new one."
                    )
                return key
        raise Unauthenticated(
            "There is no such key. Is it complete? It may have been removed, or replaced by a new one."
        )

    async def run(self) -> None:
        """Follow the files until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                await asyncio.to_thread(self.refresh)
            except Exception:  # a fault of ours must not end the following
                _log.exception("keys_not_followed")

    def refresh(self) -> None:
        """Take over what has changed."""
        for path, take in self._files.items():
            seen = file_stamp(path)
            if seen == self._seen[path]:
                continue
            self._seen[path] = seen
            try:
                take(path)
            except InvalidKeyFile as error:
                self._not_read.add(path)
                _log.error("keys_not_read", reason=str(error), detail="The keys that were read last stay in force.")
            else:
                self._not_read.discard(path)
                _log.info("keys", file=path.name, keys=sorted({key.name for key in self._by_id.values()}))
            self._not_read_gauge.set(len(self._not_read))

    def _take_admin(self, path: Path) -> None:
        text = admin_key.read(path)
        self._admin = Key(id=ADMIN, name=ADMIN, rights=frozenset(["admin"]), created=self._now(), sha256=digest(text))

    def _take(self, path: Path) -> None:
        self._by_id = {key.id: key for key in key_file.read(path)}
        self.required = True


def _is_there(path: Path) -> bool:
    """Also a link to nothing is there, and refused when it is read: without its keys, the gateway would be open."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InvalidKeyFile(f"The keys in {path} cannot be read: {error.strerror}.") from None
    return True
