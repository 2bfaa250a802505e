"""What a watcher must not hold: it runs for days beside the task."""

from __future__ import annotations

import subprocess
import sys

#: Each is 2 to 10 MB: OpenSSL, netlink with asyncio, and the live view, where no terminal is.
HEAVY = (
    "_hashlib",
    "_ssl",
    "asyncio",
    "multiprocessing",
    "pyroute2",
    "rich",
    "google.protobuf",
    "bcc",
)


def test_watching_imports_nothing_heavy() -> None:
    program = (
        "import sys, snaplib.cli, snaplib.cli.watch, snaplib.observe, snaplib.task, snaplib.track\n"
        f"print(*(one for one in {HEAVY} if one in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
