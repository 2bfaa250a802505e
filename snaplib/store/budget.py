"""How much memory frames may take on their way into a store or out of it, whatever the task's size or number of CPUs.

A frame that is to be compressed is in a buffer first and then in what came of it; what is written as it is stays in its
buffer. More threads compress where there are more CPUs, and then frames are smaller: their number is what costs.
"""

from __future__ import annotations

__all__ = [
    "FRAME_BYTES",
    "MOST_CODERS",
    "MOST_FRAMES_BYTES",
    "MOST_WRITING",
    "buffer_frames",
    "coders",
    "coding_frames",
    "frame_bytes",
    "held_bytes",
    "reading_threads",
]

#: What buffers and compressed frames may have together. Beside them are parts of an upload (48 MiB), what threads need
#: to align what they write and to compress, and the interpreter with its libraries: 200 MB in all.
MOST_FRAMES_BYTES = 56 << 20
#: The same of frames that are read.
_MOST_READ_BYTES = 96 << 20
#: The largest frames: each costs a few hand-overs between threads, so larger ones cost less a byte.
FRAME_BYTES = 4 << 20
#: So many threads compress about as fast as one socket delivers.
MOST_CODERS = 6
#: How many frames that are written as they are may be under way: enough to keep a disk busy.
MOST_WRITING = 4
#: Frames that wait for a thread that compresses or writes, at most.
_MOST_WAITING = 4
#: How many threads may be filling a frame at the same time.
_FILLING = 3


def coders(cpus: int) -> int:
    """Return how many threads compress.

    Args:
        cpus: How many CPUs there are.
    """
    # One is the task's, or CRIU's.
    return min(MOST_CODERS, max(1, cpus - 1))


def coding_frames(workers: int) -> int:
    """Return how many frames may be on their way through the codec.

    For each worker one that it compresses, one that waits, and one that is being written; of the latter, many workers
    need no more than a few.

    Args:
        workers: How many threads compress.
    """
    return workers + min(2 * workers, _MOST_WAITING)


def buffer_frames(workers: int) -> int:
    """Return how many frames there are buffers for.

    Args:
        workers: How many threads compress.
    """
    return coding_frames(workers) + MOST_WRITING + _FILLING


def held_bytes(workers: int, frame_bytes: int) -> int:
    """Return what buffers, and compressed frames that are not written yet, take at most.

    Args:
        workers: How many threads compress.
        frame_bytes: The size of a frame.
    """
    return (buffer_frames(workers) + coding_frames(workers)) * frame_bytes


def frame_bytes(workers: int) -> int:
    """Return the size of frames with which the budget is kept.

    Args:
        workers: How many threads compress.
    """
    size = FRAME_BYTES
    while held_bytes(workers, size) > MOST_FRAMES_BYTES:
        size //= 2
    return size


def reading_threads(wanted: int, largest_bytes: int, others: int) -> int:
    """Return how many threads may read frames at the same time; whoever wrote the store chose how large those are.

    Args:
        wanted: How many there should be.
        largest_bytes: What the largest frame takes while it is read and decoded.
        others: How many more hold one each.
    """
    return max(1, min(wanted, _MOST_READ_BYTES // max(1, largest_bytes) - others))
