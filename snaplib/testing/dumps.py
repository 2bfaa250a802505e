"""Dumps whose costs are known, and profiles of tasks: for tests of forecasts and plans."""

from __future__ import annotations

import attrs
import numpy as np

from snaplib.forecasting import DumpRecord, Interval, Phases, Promise, Rates, Work
from snaplib.observe import DirtyBasis, Member, Memory, PageAges, Profile

__all__ = ["HOST", "STORE", "SimulatedHost", "make_profile"]

#: Identities of the host and the store that are simulated.
HOST, STORE = "x86_64, 2 CPUs", "file:///store"


@attrs.frozen
class SimulatedHost:
    """A host on which dumps cost what these figures say, times a scatter.

    Attributes:
        scatter: Standard deviation of the logarithm of each phase's seconds.
        memory_bytes_s: How fast pages get to the store.
        seed: Of what is random.
    """

    scatter: float = 0.05
    memory_bytes_s: float = 1e9
    seed: int = 1

    def records(self, count: int, programs: int = 10, store: str = STORE) -> list[DumpRecord]:
        """Return that many dumps."""
        random = np.random.default_rng(self.seed)
        return [
            self.record(random, f"program{number % programs}", number, store)
            for number in range(count)
        ]

    def record(
        self, random: np.random.Generator, program: str, number: int, store: str = STORE
    ) -> DumpRecord:
        """Return one dump of a program."""
        size = float(random.uniform(5e7, 2e9))
        processes = int(random.integers(1, 5))
        ratio = float(random.uniform(0.2, 0.8))
        work = Work(
            processes=processes,
            threads=processes * 3,
            descriptors=20,
            resident_bytes=size * 1.1,
            sent_bytes=size,
            ratio=ratio,
        )
        off = random.lognormal(0, self.scatter, 4)
        phases = Phases(
            (0.1 + 0.01 * processes) * off[0],
            (0.04 + 0.02 * processes + 0.05 * size / 1e9) * off[1],
            size / self.memory_bytes_s * off[2],
            0.03 * off[3],
        )
        expected = size * float(random.lognormal(0, 0.005))
        return DumpRecord(
            time_s=1e9 + 60 * number,
            host=HOST,
            store=store,
            program=program,
            work=work,
            phases=phases,
            stored_bytes=size * 0.6,
            rates=Rates(4e8, 1, 8e8),
            promise=Promise(Interval.exact(expected), Interval.exact(phases.total_s), 1.0, 120.0),
        )


def make_profile(
    size_bytes: float = 1e9,
    *,
    dirty_bytes_s: float = 1e7,
    working_set_bytes: float = 2e8,
    basis: DirtyBasis = "armed",
    watched_s: int = 200,
) -> Profile:
    """Return a profile of a task that writes pages of a working set at a rate, chosen at random.

    Args:
        size_bytes: Its memory.
        dirty_bytes_s: The rate.
        working_set_bytes: The memory it chooses from.
        basis: What the dirty figures rest on.
        watched_s: For how long it was watched, a scan a second.
    """
    times = np.arange(1.0, watched_s + 1)
    limit = min(working_set_bytes, size_bytes)
    distinct = limit * (1 - np.exp(-times * dirty_bytes_s / max(limit, 1)))
    return Profile(
        monotonic_s=1000.0,
        wall_s=1e9,
        interval_s=1.0,
        duration_s=0.01,
        pid=300,
        source="proc",
        dirty_basis=basis,
        dirty_rate_bytes_s=dirty_bytes_s,
        members=(Member(300, 1, "sort", 2, 1, int(size_bytes), int(size_bytes), 1.0, 0.1),),
        memory=Memory(anon_bytes=int(size_bytes)),
        page_ages=PageAges(1000.0, 1000.0 - times, distinct),
    )
