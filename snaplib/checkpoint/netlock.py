"""CRIU's network lock, where it locks nothing.

While a task is dumped CRIU drops the packets of its TCP connections, with rules in an nftables table of its own, and
leaves them in place when the task has ended: until it is restored nobody may answer for it.  A task without
connections leaves an empty table behind, which every packet of this host would pass from then on.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

__all__ = ["remove_empty_lock"]

#: CRIU's run id, a UUID in the inventory image; the table is named after its first 21 characters
#: (CRIU: criu/netfilter.c).
_RUN_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ID_CHARACTERS = 21


def remove_empty_lock(images: Path) -> None:
    """Remove the table of a dump that had no connections to lock.

    Args:
        images: CRIU's images of a task that has ended.
    """
    nft = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if nft is None or next(images.glob("tcp-stream-*.img"), None) is not None:
        return
    found = _RUN_ID.search((images / "inventory.img").read_bytes())
    if found is None:
        return
    table = f"CRIU-{found[0].decode()[:_ID_CHARACTERS]}"
    # That it is not there, as where CRIU locked nothing at all, is as good.
    subprocess.run(
        [nft, "delete", "table", "inet", table],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=10,
        check=False,
    )
