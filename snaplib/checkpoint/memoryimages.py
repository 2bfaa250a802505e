"""The images that CRIU restores from: its own small ones as they were, memory from the page log."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snaplib.checkpoint.images import pagemap_name
from snaplib.checkpoint.parts import split_parts
from snaplib.criu.pagemap import PAGE_BYTES, PE_LAZY, pagemap_image
from snaplib.errors import RestoreFailed, SnapshotDamaged
from snaplib.store import SnapshotReader, Space
from snaplib.store.archive import ArchiveTooLarge
from snaplib.store.reader import as_entries

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

__all__ = ["LeftOut", "NoRoomForImages", "write_images"]

#: Space.kind of a shared memory; everything else is a process.
_SHARED_MEMORY = 2


class NoRoomForImages(RestoreFailed):
    """There is not enough room for the images where they were to be put."""


#: Returns the ranges of memory that need not be in images, of each process: see `snaplib.criu.images`.
LeftOut = Callable[[Path, list[int]], "Mapping[int, npt.NDArray[np.uint64]]"]


def write_images(
    reader: SnapshotReader, images: Path, left_out: LeftOut | None = None
) -> npt.NDArray[np.void]:
    """Write all images.

    Args:
        reader: The snapshot.
        images: An empty folder.
        left_out: Tells which memory somebody else brings into the processes; by default none.

    Returns:
        RUN, shape (n,): the pages that are in no image; in the order of addresses within a process, no run in two
        mappings.

    Raises:
        NoRoomForImages: What is free there is not enough for what must be written.
        SnapshotDamaged: The snapshot's bytes are not those that were written.
    """
    index = reader.pages.index
    # Where the rest goes straight into the processes, it needs no room here.
    _extract(reader, images, 0 if left_out else index.pages * PAGE_BYTES)
    with _named(reader):
        pids = [space.id for space in index.spaces() if space.kind != _SHARED_MEMORY]
        ranges = left_out(images, pids) if left_out else {}
    left, written = [index.runs[:0]], []
    for space in index.spaces():
        runs = index.runs_of(space)
        if space.kind != _SHARED_MEMORY and space.id in ranges:
            parts, is_left = split_parts(runs, ranges[space.id])
            runs = parts[~is_left]
            left.append(parts[is_left])
        written.append((space, runs))
    pages_bytes = sum(int(runs["pages"].sum()) for _space, runs in written) * PAGE_BYTES
    if (free_bytes := _free_bytes(images)) < pages_bytes:
        raise _no_room(reader, free_bytes, pages_bytes)
    for number, (space, runs) in enumerate(written, start=1):
        entries = as_entries(runs)
        # Of what it calls lazy, CRIU would read nothing here when it restores lazily.
        entries["flags"] &= ~np.uint32(PE_LAZY)
        name = _write_pagemap(images, number, space, entries)
        _write_pages(reader, name, runs)
    return np.concatenate(left)


@contextlib.contextmanager
def _named(reader: SnapshotReader) -> Iterator[None]:
    """Say of what snapshot the images are that cannot be understood."""
    try:
        yield
    except ValueError as error:
        raise SnapshotDamaged(f"the images of snapshot {reader.snapshot.id}: {error}") from error


def _extract(reader: SnapshotReader, images: Path, pages_bytes: int) -> None:
    """Write the images that are not memory, no more of them than leaves room for so many bytes of pages."""
    free_bytes = _free_bytes(images)
    try:
        reader.extract_directory(images, max(0, free_bytes - pages_bytes))
    except ArchiveTooLarge as error:
        raise _no_room(reader, free_bytes, pages_bytes) from error


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _no_room(reader: SnapshotReader, free_bytes: int, pages_bytes: int) -> NoRoomForImages:
    return NoRoomForImages(
        f"there is room for {free_bytes >> 20} MiB where images are put, and those of snapshot "
        f"{reader.snapshot.id} take more, {pages_bytes >> 20} MiB for its memory alone",
        hint="free space there, or name another folder in $SNAPLIB_SCRATCH_DIR",
    )


def _write_pagemap(images: Path, number: int, space: Space, entries: npt.NDArray[np.void]) -> Path:
    """Write the pagemap image of a space; returns the pages image that it names."""
    (images / pagemap_name(space)).write_bytes(pagemap_image(number, entries))
    return images / f"pages-{number}.img"


def _write_pages(reader: SnapshotReader, path: Path, runs: npt.NDArray[np.void]) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        where = f"snapshot {reader.snapshot.id}"
        raise SnapshotDamaged(f"{where} has an image of memory twice: {path.name}") from error
    try:
        # A file system that knows how large it will be can take larger pieces of memory or disk.
        os.ftruncate(descriptor, int(runs["pages"].sum()) * PAGE_BYTES)
        reader.pages.copy_runs(runs, descriptor)
    finally:
        os.close(descriptor)
