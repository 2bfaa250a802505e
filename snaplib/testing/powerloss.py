"""Power that goes at any moment: what a disk may be left with then.

`RecordedDisk` notes what is done to files and folders while a block runs, and makes from that, for
any moment in it, what could be found afterwards.  That is not only what was done: data that nobody
has synced may be lost or torn, and so may names in folders that nobody has synced, each without the
other.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from unittest import mock

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LOSSES", "Loss", "RecordedDisk"]

#: What becomes of what was not synced: nothing of it arrived; all of it; only names; all but the
#: second half of the last write; only what was done last; some of it, by chance.
Loss = Literal["nothing", "all", "names", "torn", "last", "some"]
LOSSES: tuple[Loss, ...] = ("nothing", "all", "names", "torn", "last", "some")


@attrs.frozen
class _Operation:
    """Something done to a file or a folder; both are known by numbers.

    Attributes:
        kind: What.
        node: The folder whose names change, or the file.
        name: The name that is added, dropped or moved.
        child: What it is added for.
        new_name: What it is moved to, in the same folder.
        offset: Where in the file.
        data: What is written there.
    """

    kind: Literal["add", "drop", "move", "write", "sync"]
    node: int
    name: str = ""
    child: int = 0
    new_name: str = ""
    offset: int = 0
    data: bytes = b""


class _Tree:
    """Files and folders by their numbers; 0 is the folder that all are in."""

    def __init__(self, folders: set[int]) -> None:
        self.folders: dict[int, dict[str, int]] = {number: {} for number in folders}
        self.files: dict[int, bytearray] = {}

    def apply(self, done: _Operation) -> None:
        if done.kind == "write":
            content = self.files.setdefault(done.node, bytearray())
            content += bytes(max(0, done.offset - len(content)))
            content[done.offset : done.offset + len(done.data)] = done.data
            return
        if done.kind == "sync":
            return
        names = self.folders[done.node]
        if done.kind == "add":
            names[done.name] = done.child
        elif done.kind == "drop":
            names.pop(done.name, None)
        elif done.name in names:
            names[done.new_name] = names.pop(done.name)

    def walk(self, node: int = 0, path: str = "") -> Iterator[tuple[str, bytes | None]]:
        """Yield what has a name: its path, and its content, None for folders."""
        for name, child in sorted(self.folders[node].items()):
            if child in self.folders:
                yield path + name, None
                yield from self.walk(child, f"{path}{name}/")
            else:
                yield path + name, bytes(self.files.get(child, b""))


class RecordedDisk:
    """Notes what is done under a folder of this machine; a context manager.

    While it is entered, it stands in for the functions of `os` that change files, in all of this
    process.

    Args:
        root: The folder, which must exist and be empty.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._operations: list[_Operation] = []
        self._folders = {0}
        self._live = _Tree(self._folders)
        self._nodes = 0
        self._open: dict[int, int] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        watched: dict[str, Callable[..., None]] = {
            "open": self._opened,
            "close": self._closed,
            "pwrite": self._wrote,
            "fsync": self._synced,
            "fdatasync": self._synced,
            "link": self._linked,
            "unlink": self._dropped,
            "remove": self._dropped,
            "rmdir": self._dropped,
            "rename": self._moved,
            "mkdir": self._made,
        }
        for name, watch in watched.items():
            stand_in = self._standing_in(getattr(os, name), watch)
            self._stack.enter_context(mock.patch.object(os, name, stand_in))
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        """How many operations there have been so far."""
        return len(self._operations)

    def after(self, count: int, loss: Loss) -> dict[str, bytes | None]:
        """Return what may be there if the power goes after so many operations.

        Args:
            count: How many.
            loss: What becomes of what was not synced.

        Returns:
            Contents by path, None for folders.
        """
        done = self._operations[:count]
        arrived = _synced(done)
        chance = random.Random(count)
        tree = _Tree(self._folders)
        for number, one in enumerate(done):
            if arrived[number] or loss == "all":
                tree.apply(one)
            elif loss == "torn":
                is_last = number == count - 1 and one.kind == "write"
                half = attrs.evolve(one, data=one.data[: len(one.data) // 2])
                tree.apply(half if is_last else one)
            elif (
                (loss == "names" and one.kind != "write")
                or (loss == "last" and number == count - 1)
                or (loss == "some" and chance.random() < 0.5)
            ):
                tree.apply(one)
        return dict(tree.walk())

    def _standing_in(self, real: Callable[..., Any], watch: Callable[..., None]) -> Any:
        def stand_in(*arguments: Any, **named: Any) -> Any:
            # One at a time: they must be noted in the order in which they happen.
            with self._lock:
                result = real(*arguments, **named)
                watch(result, *arguments, **named)
                return result

        return stand_in

    def _find(self, path: Any, dir_fd: int | None = None) -> tuple[int, str] | None:
        """Return the folder that a path is in, and its name there; None if it is none of ours."""
        where = Path(os.fsdecode(path))
        if dir_fd is not None:
            node = self._open.get(dir_fd)
            return None if node is None else (node, where.name)
        if where == self._root or not where.is_relative_to(self._root):
            return None
        *above, name = where.relative_to(self._root).parts
        node = 0
        for part in above:
            node = self._live.folders[node][part]
        return node, name

    def _note(self, done: _Operation) -> None:
        self._live.apply(done)
        self._operations.append(done)

    def _add(self, place: tuple[int, str], child: int | None = None) -> int:
        if child is None:
            self._nodes += 1
            child = self._nodes
        self._note(_Operation("add", place[0], place[1], child))
        return child

    def _opened(
        self, fd: int, path: Any, flags: int, _mode: int = 0o777, *, dir_fd: int | None = None
    ) -> None:
        self._open.pop(fd, None)
        if dir_fd is None and Path(os.fsdecode(path)) == self._root:
            self._open[fd] = 0
        elif place := self._find(path, dir_fd):
            node = self._live.folders[place[0]].get(place[1])
            if node is None:
                assert flags & os.O_CREAT
                node = self._add(place)
            self._open[fd] = node

    def _closed(self, _done: None, fd: int) -> None:
        self._open.pop(fd, None)

    def _wrote(self, written: int, fd: int, data: Any, offset: int) -> None:
        if fd in self._open:
            content = bytes(memoryview(data)[:written])
            self._note(_Operation("write", self._open[fd], offset=offset, data=content))

    def _synced(self, _done: None, fd: int) -> None:
        if fd in self._open:
            self._note(_Operation("sync", self._open[fd]))

    def _made(self, _done: None, path: Any, _mode: int = 0o777) -> None:
        if place := self._find(path):
            self._nodes += 1
            self._folders.add(self._nodes)
            self._live.folders[self._nodes] = {}
            self._add(place, self._nodes)

    def _linked(self, _done: None, source: Any, target: Any) -> None:
        old, new = self._find(source), self._find(target)
        if old is not None and new is not None:
            self._add(new, self._live.folders[old[0]][old[1]])

    def _dropped(self, _done: None, path: Any, *, dir_fd: int | None = None) -> None:
        if place := self._find(path, dir_fd):
            self._note(_Operation("drop", *place))

    def _moved(self, _done: None, source: Any, target: Any) -> None:
        old, new = self._find(source), self._find(target)
        if old is not None and new is not None:
            assert old[0] == new[0], "moves between folders are not known here"
            self._note(_Operation("move", *old, new_name=new[1]))


def _synced(done: list[_Operation]) -> list[bool]:
    """Return of each operation whether what it was done to has been synced since."""
    synced: set[int] = set()
    arrived = []
    for one in reversed(done):
        if one.kind == "sync":
            synced.add(one.node)
        arrived.append(one.node in synced)
    return arrived[::-1]
