"""What is found out of another machine before anything is fetched."""

from __future__ import annotations

import platform
from pathlib import Path

import attrs
import pytest

from snaplib.checkpoint.describe import cpu_features
from snaplib.checkpoint.hostcheck import check_host
from snaplib.criu import Criu
from snaplib.errors import RestoreFailed
from snaplib.store import Store
from snaplib.testing.snapshots import sample_snapshot
from snaplib.testing.stores import MemoryBackend

CRIU = Criu(path=Path("/criu"), version=(4, 2, 1))


@pytest.fixture
def snapshot():
    """A snapshot of this machine."""
    host = {
        "arch": platform.machine(),
        "kernel": "6.1",
        "criu_version": "4.2",
        "cpu_features": cpu_features(),
    }
    made = sample_snapshot(Store.over(MemoryBackend(), create=True))
    return attrs.evolve(made, host=host)


def elsewhere(snapshot, **host):
    return attrs.evolve(snapshot, host={**snapshot.host, **host})


def test_this_machine(snapshot):
    """Where it was taken it can be restored, and so can one that says nothing of the CPU."""
    check_host(snapshot, CRIU)
    check_host(attrs.evolve(snapshot, host={"arch": platform.machine()}), CRIU)


def test_another_architecture(snapshot):
    with pytest.raises(RestoreFailed, match="of a pdp11 machine"):
        check_host(elsewhere(snapshot, arch="pdp11"), CRIU)


def test_instructions_that_are_missing(snapshot):
    """Each is named."""
    more = [*snapshot.host["cpu_features"], "avx_future", "sha_future"]
    with pytest.raises(RestoreFailed, match="avx_future, sha_future"):
        check_host(elsewhere(snapshot, cpu_features=more), CRIU)


def test_a_newer_criu(snapshot):
    """Images of a newer CRIU may not be understood; a patch release makes no difference."""
    check_host(elsewhere(snapshot, criu_version="4.2.9"), CRIU)
    with pytest.raises(RestoreFailed, match=r"CRIU 4\.3 and this is 4\.2\.1"):
        check_host(elsewhere(snapshot, criu_version="4.3"), CRIU)


def test_features_are_those_of_all_cpus(tmp_path):
    """Of CPUs that differ what all of them have; what says nothing of instructions is left out."""
    path = tmp_path / "cpuinfo"
    path.write_text(
        "processor : 0\nflags : fpu sse avx2 avx512f smep hypervisor\n\n"
        "processor : 1\nflags : fpu sse avx2 smep hypervisor\n"
    )
    assert cpu_features(path) == ["avx2", "sse"]
