"""A machine that is cut off from its bucket at any moment: what the bucket then holds.

An object is there wholly or not at all, and as soon as the store has said so it stays.  What is
under way, such as the parts of a large object, shows nowhere.  Of several objects that one request
deletes, any may be gone when it is cut.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["RecordedBucket"]


@attrs.frozen
class _Operation:
    """Objects that were put, with their contents, or deleted."""

    put: tuple[tuple[str, bytes], ...] = ()
    deleted: tuple[str, ...] = ()


class RecordedBucket:
    """Notes what is put into buckets and deleted from them, by this process; a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operations: list[_Operation] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        import obstore  # noqa: PLC0415 - late: it is large

        put, delete = obstore.put_async, obstore.delete_async

        async def noted_put(store: Any, path: str, content: Any, **options: Any) -> Any:
            if isinstance(content, bytes | bytearray | memoryview):
                whole = bytearray(content)
                result = await put(store, path, content, **options)
            else:
                whole = bytearray()
                result = await put(store, path, _kept(content, whole), **options)
            self._note(_Operation(put=((path, bytes(whole)),)))
            return result

        async def noted_delete(store: Any, paths: Any) -> None:
            await delete(store, paths)
            self._note(_Operation(deleted=(paths,) if isinstance(paths, str) else tuple(paths)))

        self._stack.enter_context(mock.patch.object(obstore, "put_async", noted_put))
        self._stack.enter_context(mock.patch.object(obstore, "delete_async", noted_delete))
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        """How many requests there have been so far."""
        return len(self._operations)

    def _note(self, done: _Operation) -> None:
        with self._lock:
            self._operations.append(done)

    def after(self, count: int) -> Iterator[dict[str, bytes]]:
        """Yield what may be there if the machine is cut off after so many requests.

        Args:
            count: How many were answered; of the next one some may have been done.

        Yields:
            Contents by name.
        """
        objects: dict[str, bytes] = {}
        for one in self._operations[:count]:
            objects.update(one.put)
            for name in one.deleted:
                objects.pop(name, None)
        yield objects
        if count < len(self._operations):
            under_way = self._operations[count].deleted
            for order in (under_way, under_way[::-1]):
                for some in range(1, len(order)):
                    yield {name: objects[name] for name in objects if name not in order[:some]}


async def _kept(parts: AsyncIterator[Any], whole: bytearray) -> AsyncIterator[Any]:
    async for part in parts:
        whole += part
        yield part
