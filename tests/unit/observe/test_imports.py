"""What a watcher must not hold: it runs for days beside the task."""

from __future__ import annotations

import subprocess
import sys

#: The first are 2 to 10 MB each: OpenSSL, netlink with asyncio, and the live view, where no terminal is. The
#: others are half a MB each, and for what a watch does not always do.
HEAVY = (
    "_hashlib",
    "_ssl",
    "asyncio",
    "multiprocessing",
    "pyroute2",
    "rich",
    "google.protobuf",
    "bcc",
    "backports.zstd",
    "decimal",
    "lzma",
    "shutil",
    "tempfile",
    "snaplib.kernel.injection",
    "snaplib.kernel.sockets",
    "snaplib.session",
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
