"""Where a process's cgroup lies, on made-up mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaplib.kernel.cgroup import TaskCgroup, find_cgroup
from snaplib.testing.procfs import FakeProc

PID = 4_000_001


def make(tmp_path: Path, *, cgroup: str, mounts: list[tuple[str, str, str, str]]) -> FakeProc:
    """Make a /proc with one task and us; a mount is (root, name, type, super options)."""
    lines = "".join(
        f"{30 + number} 20 0:{number} {root} {tmp_path / name} rw - {kind} none {options}\n"
        for number, (root, name, kind, options) in enumerate(mounts)
    )
    (tmp_path / "proc").mkdir()
    proc = FakeProc(tmp_path / "proc")
    proc.add(PID, cgroup=cgroup)
    proc.add(os.getpid(), cgroup=cgroup, mountinfo=lines)
    return proc


def make_cgroup(folder: Path, *pids: int, control: str = "cgroup.freeze") -> Path:
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    (folder / control).write_text("0\n" if control == "cgroup.freeze" else "THAWED\n")
    return folder


V2 = ("/", "unified", "cgroup2", "rw,nsdelegate")
V1 = ("/", "freezer", "cgroup", "rw,freezer")


@pytest.mark.parametrize(
    ("mount", "cgroup", "version", "control"),
    [
        (V2, "4:cpu:/x\n0::/job/a\n", 2, "cgroup.freeze"),
        (V1, "6:freezer:/job/a\n0::/\n", 1, "freezer.state"),
        (("/outer", "unified", "cgroup2", "rw"), "0::/outer/job/a\n", 2, "cgroup.freeze"),
    ],
)
def test_a_cgroup_of_the_tasks_own_is_found(
    tmp_path: Path, mount: tuple[str, str, str, str], cgroup: str, version: int, control: str
) -> None:
    proc = make(tmp_path, cgroup=cgroup, mounts=[mount])
    folder = make_cgroup(tmp_path / mount[1] / "job/a", PID, control=control)
    found = find_cgroup(proc.procfs, PID)
    assert found is not None
    assert (found.path, found.version) == (folder, version)
    assert not found.requested()
    assert found.pids() == {PID}


def test_strangers_below_count(tmp_path: Path) -> None:
    proc = make(tmp_path, cgroup="0::/job\n", mounts=[V2])
    folder = make_cgroup(tmp_path / "unified/job", PID)
    proc.add(PID + 1)
    make_cgroup(folder / "inner", PID + 1)
    assert find_cgroup(proc.procfs, PID) is None


def test_members_elsewhere_count_but_not_zombies(tmp_path: Path) -> None:
    proc = make(tmp_path, cgroup="0::/job\n", mounts=[V2])
    make_cgroup(tmp_path / "unified/job", PID)
    (proc.root / f"{PID}/task/{PID}/children").write_text(f"{PID + 1} ")
    proc.add(PID + 1, state="Z", ppid=PID)
    assert find_cgroup(proc.procfs, PID) is not None
    (proc.root / f"{PID}/task/{PID}/children").write_text(f"{PID + 2} ")
    proc.add(PID + 2, ppid=PID)
    assert find_cgroup(proc.procfs, PID) is None
    assert not TaskCgroup(tmp_path / "unified/job", 2).holds(proc.procfs, PID)


@pytest.mark.parametrize("cgroup", ["0::/\n", "0::/../other\n", "1:name=systemd:/job\n", ""])
def test_no_cgroup_to_freeze(tmp_path: Path, cgroup: str) -> None:
    proc = make(tmp_path, cgroup=cgroup, mounts=[V2])
    (tmp_path / "unified").mkdir()  # the root has no control file
    assert find_cgroup(proc.procfs, PID) is None


def test_one_is_not_made_where_nothing_is_mounted(tmp_path: Path) -> None:
    proc = make(tmp_path, cgroup="0::/\n", mounts=[])
    assert TaskCgroup.create("x", procfs=proc.procfs) is None


def test_requests_are_written_and_states_read(tmp_path: Path) -> None:
    two = TaskCgroup(make_cgroup(tmp_path / "two"), 2)
    two.request(frozen=True)
    assert two.control.read_text().startswith("1")
    assert two.requested()
    (two.path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert not two.frozen()
    (two.path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert two.frozen()
    one = TaskCgroup(make_cgroup(tmp_path / "one", control="freezer.state"), 1)
    assert not one.requested()
    one.control.write_text("FREEZING\n")
    assert one.requested()
    assert not one.frozen()
    one.request(frozen=True)
    assert one.control.read_text().startswith("FROZEN")
