"""Answers a request: a userfaultfd of each of some processes, or why there is none."""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import threading
from collections.abc import Iterable

from snaplib.kernel.injection.machine import machine
from snaplib.kernel.injection.taking import take

__all__ = ["serve"]


def serve(channel: socket.socket, pids: Iterable[int]) -> None:
    """Take a userfaultfd out of each process, and send a message for each.

    Args:
        channel: Where to; a SOCK_SEQPACKET socket.
        pids: Of the processes.
    """
    for pid in pids:
        # A thread each: its end lets go of what could not be detached.
        thread = threading.Thread(target=_serve_one, args=(channel, pid))
        thread.start()
        thread.join()


def _serve_one(channel: socket.socket, pid: int) -> None:
    answer: dict[str, object] = {"pid": pid, "errno": 0, "detail": "", "stopped_s": 0.0}
    descriptors = []
    try:
        if machine() is None:
            raise OSError(errno.ENOTSUP, f"not tried on {platform.machine()} yet")
        descriptor, answer["stopped_s"] = take(pid)
        descriptors.append(descriptor)
    except FileNotFoundError:
        answer["errno"], answer["detail"] = errno.ESRCH, "it has ended"
    except OSError as error:
        answer["errno"] = error.errno or errno.EIO
        answer["detail"] = error.strerror or str(error)
    try:
        socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)
    except OSError:
        # Nobody listens any more; the descriptor goes when we end, and tracking with it.
        return
    finally:
        for one in descriptors:
            os.close(one)
