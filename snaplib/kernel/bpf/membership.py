"""Who is in a process tree that programs follow, and by which ids.

Programs see processes by their ids in the machine's first PID namespace (*host ids*); this process and its
callers may live in another one and use that one's (*pids*). The kernel tells both of each process.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from pathlib import Path

import numpy as np

from snaplib.kernel.bpf import records
from snaplib.kernel.bpf.programs import Programs

__all__ = ["Membership"]

#: Rounds of looking for children of those that were added; who forks faster is caught up with later.
_ROUNDS = 64

_ADDED = struct.pack("<Q", records.ADDED)


class Membership:
    """The members, kept by the programs of `bpf/tree.c`, and looked after from here.

    A child is a member from its birth, for the programs see to it. But those of the root that were there
    before, orphans that a member takes in, and whoever else is a member's child and none himself, is made
    one whenever the members are listed.

    Args:
        programs: With the sets ``tree`` and ``tasks`` loaded.
        root: Pid of the first member.
        cgroup_id: A version 2 cgroup whose processes belong as well; 0 for none.

    Raises:
        ProcessLookupError: The root has ended.
    """

    def __init__(self, programs: Programs, root: int, *, cgroup_id: int = 0) -> None:
        self._programs = programs
        self._pids: dict[int, int] = {}
        #: Added from here and not seen alive since: who ended before it was added has told nobody.
        self._unconfirmed: set[int] = set()
        #: Added after the beginning, and perhaps being born just then.
        self._newly_adopted: set[int] = set()
        self._adopted = 0
        self._refused: set[int] = set()
        everybody = programs.iterate("bpf_iter__task_any", records.PROCESS)
        everybody = everybody[everybody["live"] > 0]
        # All that we can see are in our PID namespace or in one below it.
        self._level = int(everybody["level"].min())
        mine = dict(zip(self._own_ids(everybody), everybody["tgid"].tolist(), strict=True))
        if root not in mine:
            raise ProcessLookupError(errno.ESRCH, f"no process {root}")
        self._set(records.SETTING_LEVEL, self._level)
        self._set(records.SETTING_NAMESPACE, _own_namespace())
        self._set(records.SETTING_CGROUP, cgroup_id)
        # The programs are attached: whom a member forks from now on is in by itself.
        self._add(mine[root])
        self._bring_in()
        self._newly_adopted.clear()

    def processes(self) -> np.ndarray:
        """Return the living members as `records.PROCESS`; ``tgid`` and ``parent`` are pids."""
        # Whose birth was under way when it was added has been added again, by the program.
        late = {one for one in self._newly_adopted if self._is_added(one)}
        self._adopted += len(late)
        self._newly_adopted.clear()
        found = self._bring_in()
        found["tgid"], found["parent"] = self.pids_of(found["tgid"]), self.pids_of(found["parent"])
        return found

    @property
    def adopted(self) -> int:
        """How many were made members since the beginning though nobody has seen them being born."""
        return self._adopted

    @property
    def refused(self) -> int:
        """How many could not be made members, or could not be counted, because a map was full."""
        return len(self._refused)

    @property
    def births(self) -> dict[int, int]:
        """The members living just now, by their host ids, and when each was born or that it was added."""
        ids, births = self._programs.maps["members"].items(np.uint32, np.uint64)
        return dict(zip(ids.tolist(), births[:, 0].tolist(), strict=True))

    def pid_of(self, host_id: int) -> int:
        """Return the pid of a member listed before; 0 if it was not."""
        return host_id if self._level == 0 else self._pids.get(host_id, 0)

    def pids_of(self, host_ids: np.ndarray) -> np.ndarray:
        """Return the same of many, shape (n,)."""
        if self._level == 0:
            return host_ids  # in the machine's first namespace both are the same, known or not
        unique, inverse = np.unique(host_ids, return_inverse=True)
        return np.array([self.pid_of(one) for one in unique.tolist()], np.uint32)[inverse]

    def _bring_in(self) -> np.ndarray:
        """Make members of all living descendants of members; return the members."""
        found = np.empty(0, records.PROCESS)
        for _ in range(_ROUNDS):
            found = self._programs.iterate("bpf_iter__task", records.PROCESS)
            self._confirm(found)
            strays = found[(found["member"] == 0) & (found["live"] > 0)]
            added = [one for one in strays["tgid"].tolist() if self._add(one)]
            self._newly_adopted.update(added)
            if not added:
                break
        members: np.ndarray = found[found["member"] != 0]
        self._pids = dict(zip(members["tgid"].tolist(), self._own_ids(members), strict=True))
        return members

    def _add(self, host_id: int) -> bool:
        """Make a process a member; return whether it is one now by our doing."""
        key = struct.pack("<I", host_id)
        try:
            if not self._programs.maps["members"].add(key, _ADDED):
                return False
            self._unconfirmed.add(host_id)
            self._programs.maps["counts"].add(key, bytes(records.COUNTS.itemsize))
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            self._refused.add(host_id)
            return False
        return True

    def _confirm(self, found: np.ndarray) -> None:
        if self._unconfirmed:
            ended = self._unconfirmed - set(found["tgid"][found["live"] > 0].tolist())
            for host_id in ended:
                if self._is_added(host_id):
                    self._programs.maps["members"].delete(struct.pack("<I", host_id))
            self._newly_adopted -= ended
            self._unconfirmed.clear()

    def _is_added(self, host_id: int) -> bool:
        value = self._programs.maps["members"].get(struct.pack("<I", host_id), np.uint64)
        return value is not None and int(value[0]) == records.ADDED

    def _own_ids(self, found: np.ndarray) -> list[int]:
        ids: list[int] = found["ids"][:, min(self._level, 7)].tolist()
        return ids

    def _set(self, which: int, value: int) -> None:
        self._programs.maps["settings"].set(struct.pack("<I", which), struct.pack("<Q", value))


def _own_namespace() -> int:
    with contextlib.suppress(OSError):
        return Path("/proc/self/ns/pid").stat().st_ino
    return 0
