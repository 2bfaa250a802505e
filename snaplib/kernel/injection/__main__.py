"""The process that takes userfaultfds out of others: ``python -I -S`` runs this file.

Arguments: number of a SOCK_SEQPACKET socket, then pids. For each pid it sends one message, JSON
with ``pid``, ``errno``, ``detail`` and ``stopped_s``, with the descriptor beside it on success.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import types


def _stand_in(name: str, path: str) -> None:
    """Have a package's modules found without its ``__init__``, whose imports take time and site-packages."""
    module = types.ModuleType(name)
    module.__path__ = [path]
    sys.modules[name] = module


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # Starts without pathlib.
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    kernel = os.path.dirname(here)  # noqa: PTH120
    _stand_in("snaplib", os.path.dirname(kernel))  # noqa: PTH120
    _stand_in("snaplib.kernel", kernel)
    _stand_in("snaplib.kernel.injection", here)
    from snaplib.kernel.injection.serving import serve  # noqa: PLC0415 - after the stand-ins

    serve(socket.socket(fileno=int(sys.argv[1])), map(int, sys.argv[2:]))


_main()
