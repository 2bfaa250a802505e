"""Where the images of an eager restore lie: in memory where there is room, else on disk.

Most memory is in no image, see `snaplib.checkpoint.filling`.  In memory, CRIU frees each piece of the images as soon as
it is the task's (auto-dedup), so that a task never takes its memory twice; nothing is written to a disk that the store
may be on as well; and nothing remains, whoever dies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.checkpoint.memoryimages import LeftOut, NoRoomForImages, write_images
from snaplib.kernel.headroom import memory_headroom_bytes
from snaplib.kernel.memoryfolder import open_memory_folder
from snaplib.scratch import scratch_dir
from snaplib.store import PAGE_BYTES, SnapshotReader
from snaplib.store.index import RUN

__all__ = ["ImageFolder", "images_of"]

#: What CRIU has read and not freed yet (128 MiB, CRIU: criu/pie/restorer.c), and the images that are not memory.
_EXTRA_BYTES = 512 << 20


@attrs.frozen
class ImageFolder:
    """A folder of images.

    Attributes:
        path: Its path, good in this process and in those that have the descriptor.
        descriptor: What must be passed on to who uses the path, or -1 where anybody can.
        left: RUN, shape (n,): the pages that are in no image, and must be written into the processes.
    """

    path: Path
    descriptor: int = -1
    left: npt.NDArray[np.void] = attrs.field(factory=lambda: np.empty(0, RUN), eq=False)

    @property
    def in_memory(self) -> bool:
        """Whether it ends with its descriptor."""
        return self.descriptor >= 0


@contextlib.contextmanager
def images_of(reader: SnapshotReader, left_out: LeftOut | None = None) -> Iterator[ImageFolder]:
    """Give a folder with all images of a snapshot; it is gone afterwards.

    Args:
        reader: The snapshot.
        left_out: See `write_images`.

    Raises:
        NoRoomForImages: There is no room for them.
        SnapshotDamaged: The snapshot's bytes are not those that were written.
    """
    with contextlib.ExitStack() as stack:
        folder = _written_in_memory(reader, left_out)
        if folder is not None:
            stack.callback(os.close, folder.descriptor)
        else:
            path = stack.enter_context(scratch_dir("restore"))
            folder = ImageFolder(path, left=write_images(reader, path, left_out))
        yield folder


def _written_in_memory(reader: SnapshotReader, left_out: LeftOut | None) -> ImageFolder | None:
    """Write the images into memory; None where that is too much for this machine, or cannot be had."""
    if "SNAPLIB_SCRATCH_DIR" in os.environ:
        return None  # somebody wants them there
    needed_bytes = reader.snapshot.raw_bytes * 9 // 8 + _EXTRA_BYTES
    if memory_headroom_bytes() < needed_bytes:
        return None
    try:
        descriptor = open_memory_folder(needed_bytes)
    except OSError:
        return None
    path = Path(f"/proc/self/fd/{descriptor}")
    try:
        folder = ImageFolder(path, descriptor, write_images(reader, path, left_out))
        if memory_headroom_bytes() < int(folder.left["pages"].sum()) * PAGE_BYTES:
            raise NoRoomForImages("the images leave no room for the memory")
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, NoRoomForImages):
            return None  # deleted files, which may be larger than all memory
        raise
    return folder
