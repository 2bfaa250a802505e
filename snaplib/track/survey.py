"""One look at all armed processes of a task, a `Look` for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaplib.track.look import Look
from snaplib.track.records import Estimate, ProcessScan, Unknown
from snaplib.track.runs import join_runs
from snaplib.track.sampling import SampleCount
from snaplib.track.states import solid_pages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snaplib.track.roster import Roster

__all__ = ["Survey"]


class Survey:
    """Looks at armed processes; one with which something goes wrong is left out, and disarmed.

    Args:
        roster: The armed processes.
        sampled: Whether their memory is armed in part.
    """

    def __init__(self, roster: Roster, *, sampled: bool) -> None:
        self._roster = roster
        self._sampled = sampled
        self.looks: dict[int, Look] = {}

    def expect(self) -> None:
        """Have a `Look` for each armed process, at which nobody has looked yet."""
        self.looks = {pid: Look() for pid in self._roster.armed}

    def look(self, pids: Iterable[int], *, rearm: bool) -> None:
        """Find out what changed in some of them, while they may run."""
        for pid in pids:
            look = Look()
            with self._roster.attempt(pid):
                self._roster.armed[pid].look(look, rearm=rearm)
                self.looks[pid] = look

    @property
    def missing(self) -> bool:
        """Whether something is not registered."""
        return any(look.missing for look in self.looks.values())

    def settle(self, *, until_s: float, anew: bool = False) -> None:
        """Register what is not; they must stand still. See `ArmedProcess.settle`."""
        for pid, look in self._armed():
            with self._roster.attempt(pid):
                self._roster.armed[pid].settle(look, until_s=until_s, anew=anew)

    def count_armed(self) -> tuple[int, int, int]:
        """Finish after arming; return the pages that are armed, the mappings, and the bytes of those refused."""
        pages = mappings = refused_bytes = 0
        for pid, look in self._armed():
            process = self._roster.armed[pid]
            with self._roster.attempt(pid):
                process.finish(look)
                pages += sum(map(solid_pages, look.runs))
                areas, refused = process.mappings(look)
                mappings += areas
                refused_bytes += refused
        return pages, mappings, refused_bytes

    def finish(self, doubtful: frozenset[int], *, rearm: bool) -> dict[int, ProcessScan]:
        """Return what was found, by pid.

        Args:
            doubtful: Processes of which nothing that was found before is to be believed.
            rearm: Whether what was found is armed anew.
        """
        processes = {}
        for pid, look in self._armed():
            with self._roster.attempt(pid):
                process = self._roster.armed[pid]
                process.finish(look, rearm=rearm)
                if pid in doubtful:
                    process.distrust(look, Unknown.FAILED)
                runs = join_runs(look.runs)
                known = runs["why"] == Unknown.KNOWN
                processes[pid] = ProcessScan(
                    pid, runs[known], runs[~known], complete=not self._sampled
                )
        return processes

    def estimate(self, processes: dict[int, ProcessScan]) -> Estimate:
        """Return how many pages of a task are dirty.

        Args:
            processes: What was found of all its processes, the armed and the others.
        """
        if not self._sampled:
            arrays = (
                one for process in processes.values() for one in (process.runs, process.untracked)
            )
            return Estimate(float(sum(map(solid_pages, arrays))))
        count = SampleCount()
        for pid, process in sorted(processes.items()):
            if pid in self.looks and pid in self._roster.armed:
                count.add(self.looks[pid].count)
            else:
                count.add_certain(solid_pages(process.untracked))
        return count.estimate()

    def _armed(self) -> list[tuple[int, Look]]:
        return [(pid, look) for pid, look in self.looks.items() if pid in self._roster.armed]
