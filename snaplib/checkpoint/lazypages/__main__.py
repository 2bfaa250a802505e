"""The process behind a lazy restore, told what to do on standard input.

Lines of JSON come in: where the snapshot is; where its images are, and in which file what they leave out; the init of
the task's PID namespace; and that the task runs.  Standard input ending before that means that it does not.  Lines of
JSON go to standard output: ``ready``, the bytes served so far, and how it ended.

A child serves; this process guards it, see `snaplib.checkpoint.lazypages.guard`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from snaplib.checkpoint.lazypages.guard import Guarded, guard


def main() -> int:
    """Serve one restored task until its memory is complete; the listening socket's descriptor is our argument."""
    # Whoever started us may be gone when we report, and need not be there when a terminal hangs up.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        # Without us the task cannot go on.
        Path("/proc/self/oom_score_adj").write_text("-1000")
    listener = socket.socket(fileno=int(sys.argv[1]))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Here, where there is one thread, and nothing is imported yet that the guard does not need.
    if os.fork():
        theirs.close()
        # A restore must not think that we answered it.
        listener.close()
        os.close(0)
        return guard(ours)
    ours.close()
    from snaplib.checkpoint.lazypages.server import serve  # noqa: PLC0415  what the guard does without

    # At once: a thread may be reading standard input.
    os._exit(serve(listener, Guarded(theirs)))


if __name__ == "__main__":
    sys.exit(main())
