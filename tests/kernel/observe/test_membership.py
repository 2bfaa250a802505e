"""Who belongs to a task: by birth, by cgroup, and seen from inside of a PID namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from snaplib.kernel import ProcFs, TaskCgroup
from snaplib.kernel.bpf import Programs
from snaplib.observe import Watch

IDLE = "print('ready'); input()"


@pytest.fixture(autouse=True)
def _needs(require) -> None:
    require("bpf_program", "bpf_raw_tracepoint", "btf")


def test_who_enters_the_tasks_own_cgroup_is_a_member(start, require) -> None:
    """As container runtimes do it: a process moves itself into the cgroup, then executes the program."""
    require("freezer_cgroup_v2")
    workload = start(IDLE)
    cgroup = TaskCgroup.create(f"snaplib-test-{workload.pid}", versions=[2])
    assert cgroup is not None
    stranger = None
    try:
        cgroup.add(workload.pid)
        with Watch(workload.task, 0.02, arm="none", source="ebpf") as watch:
            assert watch.profile().cgroup.endswith(cgroup.path.name)
            entering = f"echo $$ > {cgroup.members_file}; exec sleep 60"
            stranger = subprocess.Popen(["sh", "-c", entering])
            deadline = time.monotonic() + 30
            while len(watch.profile().members) < 2 and time.monotonic() < deadline:
                watch.wait(timeout_s=1.0)
            members = watch.profile().members
        assert [one.pid for one in members] == [workload.pid, stranger.pid]
        assert members[1].comm == "sleep"
    finally:
        if stranger is not None:
            stranger.kill()
            stranger.wait()
        workload.process.kill()
        workload.process.wait()
        assert cgroup.remove()


def test_the_root_may_end_before_the_others(start) -> None:
    workload = start(
        "import os, time; print('ready'); input(); print('done'); os.fork() or time.sleep(60)"
    )
    with Watch(workload.task, 0.02, arm="sample", source="ebpf") as watch:
        workload.do()
        workload.process.wait()
        deadline = time.monotonic() + 30
        while workload.pid in {one.pid for one in watch.profile().members}:
            assert time.monotonic() < deadline
            watch.wait(timeout_s=1.0)
        profile = watch.wait(timeout_s=10.0)
        assert len(profile.members) == 1
        assert profile.dirty_basis == "faults"
        assert any("has ended" in note for note in profile.notes)
        os.kill(profile.members[0].pid, 9)
        while watch.wait(timeout_s=10.0) is not None:
            pass
        assert watch.ended


def test_strangers_are_no_members(start) -> None:
    workload, other = (
        start(IDLE),
        start("import os; print('ready')\nwhile True: os.fork() or os._exit(0); os.wait()"),
    )
    with Watch(workload.task, 600.0, arm="none", source="ebpf") as watch:
        time.sleep(0.2)
        profile = watch._profiler.take()
    assert [one.pid for one in profile.members] == [workload.pid]
    assert profile.counts.forks == 0
    assert profile.faults.total == 0
    assert other.process.poll() is None


def test_a_second_armed_watch_says_what_its_figures_rest_on(start, require) -> None:
    require("write_protect")
    workload = start(IDLE)
    with (
        Watch(workload.task, 600.0, arm="all") as first,
        Watch(workload.task, 600.0, arm="all") as second,
    ):
        assert first.profile().dirty_basis == "armed"
        assert second.profile().dirty_basis == "faults"
        assert any("another tracker" in note for note in second.profile().notes)
        assert first._profiler.take().dirty_basis == "armed"


INSIDE = """
import json, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import os, time; os.fork(); time.sleep(60)"])
from snaplib.observe import Watch
from snaplib.task import Task
with Watch(Task.attach(child.pid), 0.05, arm="none", source="ebpf") as watch:
    while len(watch.profile().members) < 2:
        watch.wait(timeout_s=1.0)
    profile = watch.profile()
    print(json.dumps({
        "child": child.pid,
        "members": [(one.pid, one.ppid) for one in profile.members],
        "descriptors": sorted({one.pid for one in profile.descriptors}),
        "paths": sorted({one.path for one in profile.descriptors}),
    }))
os.killpg(0, 9)
"""


def test_pids_are_those_of_the_watchers_namespace(require) -> None:
    require("pid_namespace")
    result = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", INSIDE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    told = json.loads(result.stdout)
    child = told["child"]
    assert child < 1000, "it is another namespace"
    (first, _), (second, parent) = told["members"]
    assert first == parent == child
    assert told["descriptors"] == [child, second]
    assert "/dev/null" in told["paths"]


BROOD = """
import os, sys, time
print('ready')
for line in sys.stdin:
    pid = os.fork() or time.sleep(60)
    print(pid)
"""


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_child_born_while_the_watch_begins_is_a_member(start, monkeypatch, when) -> None:
    """Just after processes were listed, which that listing cannot have."""
    workload = start.command(sys.executable, "-uc", BROOD, group=True)
    listings, born = 0, 0
    iterate = Programs.iterate

    def interrupted(self, name, *args, **options):
        nonlocal listings, born
        found = iterate(self, name, *args, **options)
        listings += name in ("bpf_iter__task", "bpf_iter__task_any")
        if listings == when and not born:
            born = int(workload.do())
        return found

    monkeypatch.setattr(Programs, "iterate", interrupted)
    with Watch(workload.task, 600.0, arm="none", source="ebpf") as watch:
        watch._profiler.take()
        profile = watch._profiler.take()
    assert [one.pid for one in profile.members] == [workload.pid, born]
    assert {one.pid for one in profile.descriptors} == {workload.pid, born}
    assert profile.counts.adopted == 0
    assert profile.losses.total == 0


def test_a_member_that_the_programs_missed_is_brought_in_and_told(start) -> None:
    workload = start.command(sys.executable, "-uc", BROOD, group=True)
    with Watch(workload.task, 600.0, arm="none", source="ebpf") as watch:
        child = int(workload.do())
        members = watch._profiler._source._observer._programs.maps["members"]
        (missed,) = set(members.items("u4", "u8")[0].tolist()) - host_ids_of(watch, workload.pid)
        assert members.delete(missed.to_bytes(4, "little"))
        profile = watch._profiler.take()
        assert [one.pid for one in profile.members] == [workload.pid, child]
        assert {one.pid for one in profile.descriptors} == {workload.pid, child}
        assert watch._profiler.take().counts.adopted == 1
        os.kill(child, 9)
        workload.do()
        assert len(watch._profiler.take().members) == 2


def host_ids_of(watch: Watch, pid: int) -> set[int]:
    membership = watch._profiler._source._observer._members
    return {one for one in membership.births if membership.pid_of(one) == pid}


def test_an_orphan_that_a_member_takes_in_is_a_member(start, require, eventually) -> None:
    """As the init of a container does with what others have started in it."""
    require("pid_namespace")
    workload = start.command(
        *("unshare", "--pid", "--fork", "--kill-child"),
        *(sys.executable, "-uc", IDLE),
        group=True,
    )
    procfs = ProcFs()
    (init,) = procfs.children(workload.pid)
    with Watch(workload.task, 600.0, arm="none", source="ebpf") as watch:
        entering = (
            "nsenter",
            "--target",
            str(init),
            "--pid",
            "sh",
            "-c",
            "sleep 60 <&- >&- 2>&- &",
        )
        subprocess.run(entering, check=True)
        eventually(lambda: procfs.children(init), "init takes it in")
        profile = watch._profiler.take()
        assert [one.pid for one in profile.members] == [
            *(workload.pid, init),
            *procfs.children(init),
        ]
        assert watch._profiler.take().counts.adopted == 1
