"""A folder in memory that nobody else sees and that ends with its last descriptor.

A tmpfs is mounted nowhere (fsopen(2), fsconfig(2), fsmount(2), Linux 5.2): no path leads to it but the descriptor's in
/proc, its size is its own rather than that of /dev/shm, and however its owner dies, the memory is free again.
"""

from __future__ import annotations

import contextlib
import os

from snaplib.kernel.syscalls import syscall

__all__ = ["open_memory_folder"]

# linux/mount.h
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOUNT_ATTR_NOSUID = 0x2
_MOUNT_ATTR_NODEV = 0x4
_MOUNT_ATTR_NOEXEC = 0x8


def open_memory_folder(size_bytes: int) -> int:
    """Return a descriptor of a new, empty folder, mode 0700.

    Args:
        size_bytes: The most that its files may have together.

    Raises:
        OSError: This process may not mount anything, or the kernel does not know how.
    """
    context = syscall("fsopen", b"tmpfs\0", _FSOPEN_CLOEXEC)
    try:
        _set(context, "mode", "0700")
        _set(context, "size", str(size_bytes))
        with contextlib.suppress(OSError):  # a kernel may be built without
            # Huge pages where a file has that size already (truncate first): filling it costs half as much.
            _set(context, "huge", "within_size")
        syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        attributes = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | _MOUNT_ATTR_NOEXEC
        return syscall("fsmount", context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def _set(context: int, name: str, value: str) -> None:
    key, text = name.encode() + b"\0", value.encode() + b"\0"
    syscall("fsconfig", context, _FSCONFIG_SET_STRING, key, text, 0)
