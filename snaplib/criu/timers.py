"""Timer descriptors in CRIU's images, which the kernel describes in a way that CRIU cannot tell from disarmed ones.

A periodic timer of timerfd_create(2) that has expired stands still until somebody reads how often, and only then runs
on (Linux: timerfd_read_iter).  /proc says that it has 0 s left (Linux: timerfd_show), and 0 s disarm a timer where CRIU
restores it (timerfd_settime(2)): it would never expire again.
"""

from __future__ import annotations

from pathlib import Path

from snaplib.criu.binary import Criu
from snaplib.criu.images import rewrite_entries
from snaplib.criu.protocol import image_messages

__all__ = ["with_running_timers"]


def with_running_timers(criu: Criu, images: Path) -> None:
    """Have periodic timers that had expired when they were dumped run on when they are restored.

    They expire next a period after the restore; what they have counted is kept.

    Args:
        criu: The CRIU that will restore.
        images: The folder of images.

    Raises:
        ValueError: An image is damaged.
    """
    path = images / "files.img"
    if path.exists():
        rewrite_entries(path, image_messages(criu, "fdinfo").file_entry, _kept)


def _kept(entry: object) -> bool:
    if not entry.HasField("tfd"):  # type: ignore[attr-defined] # of pycriu
        return False
    timer = entry.tfd  # type: ignore[attr-defined] # of pycriu
    # A timer that was disarmed has counted nothing: that sets its count to 0.
    if not timer.ticks or timer.vsec or timer.vnsec:
        return False
    timer.vsec, timer.vnsec = timer.isec, timer.insec
    return bool(timer.isec or timer.insec)
