"""Stopping a whole task for a moment, so that it surely runs again.

A cgroup freezer is used where the task has a cgroup of its own, else every process is stopped with
SIGSTOP. Before anything is stopped, a guardian process (`snaplib.kernel.guardian`) knows what and
until when: the task runs again at the deadline even if this process hangs or is killed.
"""

from __future__ import annotations

from snaplib.kernel.freezer.base import Freezer
from snaplib.kernel.freezer.cgroupfreezer import CgroupFreezer
from snaplib.kernel.freezer.choose import choose_freezer
from snaplib.kernel.freezer.stopfreezer import StopFreezer

__all__ = ["CgroupFreezer", "Freezer", "StopFreezer", "choose_freezer"]
