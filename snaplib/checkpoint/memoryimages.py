"""The images that CRIU restores from: its own small ones as they were, memory from the page log."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snaplib.checkpoint.images import pagemap_name
from snaplib.checkpoint.lazy import split_runs
from snaplib.checkpoint.parts import split_parts
from snaplib.criu import Criu
from snaplib.criu.images import fillable_ranges, lazy_ranges
from snaplib.criu.pagemap import PAGE_BYTES, pagemap_image
from snaplib.errors import RestoreFailed, SnapshotDamaged
from snaplib.store import SnapshotReader, Space
from snaplib.store.archive import ArchiveTooLarge
from snaplib.store.reader import as_entries

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["NoRoomForImages", "write_images", "write_lazy_images"]

#: Space.kind of a shared memory; everything else is a process.
_SHARED_MEMORY = 2


class NoRoomForImages(RestoreFailed):
    """There is not enough room for the images where they were to be put."""


def write_images(
    reader: SnapshotReader, images: Path, filled_for: Criu | None = None
) -> npt.NDArray[np.void]:
    """Write all images.

    Args:
        reader: The snapshot.
        images: An empty folder.
        filled_for: The CRIU that will restore, where somebody writes the rest of the memory into the processes.

    Returns:
        RUN, shape (n,): the pages that are in no image, and must be written into the processes.

    Raises:
        NoRoomForImages: What is free there is not enough for what must be written.
        SnapshotDamaged: The snapshot's bytes are not those that were written.
    """
    index = reader.pages.index
    # Where the rest goes straight into the processes, it needs no room here.
    _extract(reader, images, 0 if filled_for else index.pages * PAGE_BYTES)
    with _named(reader):
        pids = [space.id for space in index.spaces() if space.kind != _SHARED_MEMORY]
        ranges = fillable_ranges(filled_for, images, pids) if filled_for else {}
    left, written = [index.runs[:0]], []
    for space in index.spaces():
        runs = index.runs_of(space)
        if space.kind != _SHARED_MEMORY and space.id in ranges:
            parts, filled = split_parts(runs, ranges[space.id])
            runs = parts[~filled]
            left.append(parts[filled])
        written.append((space, runs))
    pages_bytes = sum(int(runs["pages"].sum()) for _space, runs in written) * PAGE_BYTES
    if (free_bytes := _free_bytes(images)) < pages_bytes:
        raise _no_room(reader, free_bytes, pages_bytes)
    for number, (space, runs) in enumerate(written, start=1):
        name = _write_pagemap(images, number, space, as_entries(runs))
        _write_pages(reader, name, runs)
    return np.concatenate(left)


def write_lazy_images(reader: SnapshotReader, criu: Criu, images: Path) -> None:
    """Write all images but the memory that may come later.

    Args:
        reader: The snapshot.
        criu: The CRIU that will restore.
        images: An empty folder.

    Raises:
        NoRoomForImages: What is free there is not enough for what must be written.
        SnapshotDamaged: The snapshot's bytes are not those that were written.
    """
    _extract(reader, images, 0)
    for number, space in enumerate(reader.pages.spaces(), start=1):
        if space.kind == _SHARED_MEMORY:
            entries, runs = reader.pages.entries(space), reader.pages.index.runs_of(space)
        else:
            with _named(reader):
                lazy = lazy_ranges(criu, images, space.id)
            entries, runs = split_runs(reader.pages.index, space, lazy)
        _write_pages(reader, _write_pagemap(images, number, space, entries), runs)


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
