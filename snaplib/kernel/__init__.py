"""The only place that speaks to the kernel: /proc, system calls, cgroups.

Records of it go everywhere; descriptors, addresses of structures and ctypes stay here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaplib.late import late

if TYPE_CHECKING:
    from snaplib.kernel.cgroup import TaskCgroup
    from snaplib.kernel.descriptors import Descriptor
    from snaplib.kernel.maps import Mapping
    from snaplib.kernel.mounts import CgroupMembership, Mount
    from snaplib.kernel.process import ProcessStat, ProcessStatus
    from snaplib.kernel.procfs import ProcFs

__all__ = [
    "CgroupMembership",
    "Descriptor",
    "Mapping",
    "Mount",
    "ProcFs",
    "ProcessStat",
    "ProcessStatus",
    "TaskCgroup",
]

#: Who speaks to one part of the kernel does without the others.
__getattr__, __dir__ = late(
    __name__,
    {
        "CgroupMembership": ".mounts",
        "Descriptor": ".descriptors",
        "Mapping": ".maps",
        "Mount": ".mounts",
        "ProcFs": ".procfs",
        "ProcessStat": ".process",
        "ProcessStatus": ".process",
        "TaskCgroup": ".cgroup",
    },
)
