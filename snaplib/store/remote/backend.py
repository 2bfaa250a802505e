"""A store in a bucket."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from snaplib.errors import StoreError
from snaplib.store.remote.lease import LEASE_NAME, LEASE_S, RemoteHold, lease_text
from snaplib.store.remote.link import Link
from snaplib.store.remote.objectreader import RemoteObjectReader
from snaplib.store.remote.objects import RemoteObjectWriter, put
from snaplib.store.throughput import Meter

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Awaitable, Callable, Iterator

    from obstore.store import ObjectStore

    from snaplib.store.throughput import Throughput

__all__ = ["RemoteBackend"]

#: How many objects are listed, and deleted, with one request.
_PAGE = 1000


class RemoteBackend:
    """Keeps objects in a bucket, through obstore.

    Args:
        url: The address, for people.
        store: obstore's store, whose requests are repeated by us.
        address: What opens it again; the same by default.
        streaming: The same place, for uploads that obstore has to repeat itself.
        bandwidth_bytes_per_s: The most to send each second; None without a limit.
        lease_s: For how long a writer's mark holds without being renewed.
        link: The way there; made from the rest by default.
    """

    def __init__(
        self,
        url: str,
        store: ObjectStore,
        *,
        address: str = "",
        streaming: ObjectStore | None = None,
        bandwidth_bytes_per_s: float | None = None,
        lease_s: float = LEASE_S,
        link: Link | None = None,
    ) -> None:
        self._url = url
        self._address = address or url
        self._store = store
        self._streaming = streaming or store
        self._link = link or Link(url, Meter(), bandwidth_bytes_per_s)
        self._lease_s = lease_s
        #: Whether the store puts on the condition that a name is new; None until that was tried.
        self._conditional: bool | None = None

    @property
    def url(self) -> str:
        """The address, without what only we need to know."""
        return self._url

    @property
    def address(self) -> str:
        """What opens it again."""
        return self._address

    @property
    def local(self) -> bool:
        """Whether its bytes are on this machine."""
        return False

    def limit_by(self, left_s: Callable[[], float] | None) -> None:
        """Give up what has no answer in time.

        Args:
            left_s: Tells how many seconds are left; None takes the limit away.
        """
        self._link.limit = left_s

    def throughput(self) -> Throughput:
        """Return how fast the store has been so far."""
        return self._link.meter.read()

    def create(self, name: str, *, bulk: bool = False) -> RemoteObjectWriter:
        """Begin a new object; it appears when it is committed."""
        del bulk
        return RemoteObjectWriter(self._link, self._store, self._streaming, name)

    def put_new(self, name: str, data: bytes) -> None:
        """Write a small object durably and atomically, if there is none of that name.

        An object that is there with the very same content counts as ours: an answer of the store
        may have been lost.
        """
        if self._conditional is False:
            self._put_unconditionally(name, data)
            return
        try:
            self._put_if_new(name, data)
        except FileExistsError:
            if self.get(name) != data:
                raise

    def _put_if_new(self, name: str, data: bytes) -> None:
        import obstore  # noqa: PLC0415 - late: local stores do without

        async def attempt() -> None:
            with self._link.meter.sending(len(data)):
                await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)

        self._link.run(attempt, name, sent_bytes=len(data))

    def _put_unconditionally(self, name: str, data: bytes) -> None:
        """Do without the condition: names are unique anyway, so this only has to notice mistakes."""
        with contextlib.suppress(FileNotFoundError):
            if self.get(name) != data:
                raise FileExistsError(name)
        self.replace(name, data)
        if self.get(name) != data:
            raise FileExistsError(name)

    def replace(self, name: str, data: bytes) -> None:
        """Write a small object, whether there is one or not."""
        put(self._link, self._store, name, data)

    def open(self, name: str, *, bulk: bool = False) -> RemoteObjectReader:
        """Open an object."""
        del bulk
        size_bytes: int = self._head(name)["size"]
        return RemoteObjectReader(self._link, self._store, name, size_bytes)

    def _head(self, name: str) -> Any:
        import obstore  # noqa: PLC0415 - late: local stores do without

        return self._link.run(lambda: obstore.head_async(self._store, name), name)

    def get(self, name: str) -> bytes:
        """Return the whole of a small object."""
        import obstore  # noqa: PLC0415 - late: local stores do without

        async def attempt() -> bytes:
            answer = await obstore.get_async(self._store, name)
            return bytes(await answer.bytes_async())

        return self._link.run(attempt, name)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder, in no particular order."""
        for page in self._pages(prefix):
            for entry in page:
                if entry["path"].rpartition("/")[2] != LEASE_NAME:
                    yield entry["path"]

    def _pages(self, prefix: str) -> Iterator[list[Any]]:
        """Yield what is under a folder, with times and sizes, as much as comes with one answer."""
        import obstore  # noqa: PLC0415 - late: local stores do without

        stream = obstore.list(self._store, prefix or None, chunk_size=_PAGE)

        async def attempt() -> list[Any]:
            async for page in stream:
                return list(page)
            return []

        while page := self._link.run(attempt, f"the objects in {prefix or 'the store'}"):
            yield page

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        self._delete([name])

    def _delete(self, names: list[str]) -> None:
        import obstore  # noqa: PLC0415 - late: local stores do without

        def make() -> Awaitable[None]:
            return obstore.delete_async(self._store, names)

        with contextlib.suppress(FileNotFoundError):
            self._link.run(make, names[0] if len(names) == 1 else f"{len(names)} objects")

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder, if there are any."""
        for page in self._pages(prefix):
            self._delete([entry["path"] for entry in page])

    def hold(self, folder: str) -> RemoteHold:
        """Mark a new folder as being written, until released or not renewed for long."""
        name, text = f"{folder}/{LEASE_NAME}", lease_text()
        if self._conditional is None:
            self._conditional = self._tried_conditions(name, text)
        else:
            self.put_new(name, text)
        return RemoteHold(self, name, text, self._lease_s)

    def _tried_conditions(self, name: str, text: bytes) -> bool:
        """Put the first lease, and find out whether the store heeds conditions."""
        try:
            self.put_new(name, text)
            try:
                self._put_if_new(name, b"{}")
            except FileExistsError:
                return True
        except StoreError as error:
            # "A header you provided implies functionality that is not implemented."
            if "NotImplemented" not in error.message and "501" not in error.message:
                raise
        self.replace(name, text)
        return False

    def delete_abandoned(self, prefix: str, keep: Callable[[str], bool]) -> list[str]:
        """Delete the folders whose writers are dead: their lease and all else in them is old."""
        deleted = []
        now: dt.datetime | None = None
        for name in self._folders(prefix):
            folder = f"{prefix}/{name}"
            if keep(name):
                continue
            if now is None:
                now = self._now()
            if self._newest_age_s(folder, now) <= self._lease_s:
                continue
            # First the lease, then the question, and only then the rest: see the lease's module.
            self.delete(f"{folder}/{LEASE_NAME}")
            if not keep(name):
                self.delete_folder(folder)
                deleted.append(name)
        return deleted

    def _folders(self, prefix: str) -> list[str]:
        import obstore  # noqa: PLC0415 - late: local stores do without

        def make() -> Awaitable[Any]:
            return obstore.list_with_delimiter_async(self._store, prefix)

        found = self._link.run(make, f"the folders in {prefix}")
        return [path.rpartition("/")[2] for path in found["common_prefixes"]]

    def _newest_age_s(self, folder: str, now: dt.datetime) -> float:
        """How long ago something in a folder was put, by the store's clock."""
        times = [entry["last_modified"] for page in self._pages(folder) for entry in page]
        # Asked for by its name: a list may lag behind.
        with contextlib.suppress(FileNotFoundError):
            times.append(self._head(f"{folder}/{LEASE_NAME}")["last_modified"])
        return (now - max(times, default=now)).total_seconds()

    def _now(self) -> dt.datetime:
        """What the store's clock says."""
        name = f"tmp/clock-{secrets.token_hex(8)}"
        self.replace(name, b"now")
        try:
            now: dt.datetime = self._head(name)["last_modified"]
        finally:
            self.delete(name)
        return now

    def free_bytes(self) -> int | None:
        """There is no limit that one could ask for."""
        return None
