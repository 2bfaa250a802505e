"""What the snapshots of a task are found by when its user has given it no name."""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["default_key"]


def default_key(command: Sequence[str], cwd: str | os.PathLike[str]) -> str:
    """Return the key of a command in a folder: its name for people, and a hash of both.

    Args:
        command: The command and its arguments.
        cwd: The folder it runs in.
    """
    import blake3  # noqa: PLC0415  most that watch a task need no key; hashlib would bring OpenSSL, 3 MB

    words = "\0".join([os.fspath(cwd), *command])
    digest = blake3.blake3(words.encode("utf-8", "surrogateescape")).hexdigest()
    name = os.path.basename(command[0]) if command else "task"  # noqa: PTH119 - no need for a Path
    return f"{''.join(c if c.isalnum() or c in '._-' else '_' for c in name)[:40]}-{digest[:12]}"
