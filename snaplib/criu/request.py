"""What all requests to CRIU have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["new_request"]


def new_request(messages: Any, kind: int, images: Path, log_file: str) -> Any:
    """Return a request that tells how it gets on, in notifications and in a log.

    Args:
        messages: The classes of CRIU's messages.
        kind: Of them ``DUMP`` or ``RESTORE``.
        images: The folder of images.
        log_file: The log's name in it.
    """
    request = messages.criu_req(type=kind)
    opts = request.opts
    opts.images_dir_fd = -1
    opts.images_dir = str(images)
    opts.log_file = log_file
    opts.log_level = 2
    opts.notify_scripts = True
    opts.manage_cgroups_mode = messages.IGNORE
    return request
