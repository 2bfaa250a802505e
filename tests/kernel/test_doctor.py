"""The probe against what is known otherwise, and `snaplib doctor`."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snaplib.errors import HostUnfit
from snaplib.host import Host
from snaplib.kernel import ProcFs
from snaplib.kernel.probe import Feature
from snaplib.kernel.probe.trial import Failed, Trial, in_child

NOBODY = 65534


@pytest.fixture(scope="module")
def host() -> Host:
    return Host.probe()


def doctor(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snaplib", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_what_the_host_is(host) -> None:
    assert host.kernel == platform.release()
    assert host.arch == platform.machine()
    assert host.cpus == len(os.sched_getaffinity(0))
    meminfo = Path("/proc/meminfo").read_text().split()
    assert host.memory_bytes == int(meminfo[meminfo.index("MemTotal:") + 1]) * 1024
    assert host.root == (os.geteuid() == 0)


def test_every_feature_tells_why_or_what_to_do(host) -> None:
    for name, feature in host.features.items():
        assert name == name.lower()
        assert feature.detail
        assert "\n" not in feature.detail + feature.remedy
        assert bool(feature.remedy) != feature.ok, name


def test_the_words_follow_from_the_trials(host) -> None:
    works = {name for name, feature in host.features.items() if feature.ok}
    if host.tracking == "write-protect":
        assert "write_protect" in works
    if host.bpf == "full":
        assert works >= {"bpf_program", "bpf_raw_tracepoint", "btf", "bcc"}
    assert set(host.missing) == {
        name for name, feature in host.features.items() if feature.needed and not feature.ok
    }


@pytest.mark.require("root")
def test_the_probe_leaves_no_trace(eventually) -> None:
    def traces() -> tuple[object, ...]:
        procfs, own = ProcFs(), os.getpid()
        return (
            procfs.namespaces(own),
            procfs.mounts(own),
            procfs.children(own),
            [one.fd for one in procfs.descriptors(own)],
            sorted(Path("/sys/fs/cgroup").glob("**/snaplib-probe*")),
            Path("/proc/sys/kernel/yama/ptrace_scope").exists(),
        )

    Host.probe()  # what is imported at the first time stays
    before = traces()
    Host.probe()
    # Not at once: another snaplib on this machine may be probing too.
    eventually(lambda: traces() == before, "the host is as it was")


def test_require_names_the_first_that_is_missing(host) -> None:
    fields = {name: Feature(True, "yes") for name in host.features}
    fields["ptrace"] = Feature(False, "Operation not permitted", "allow it", needed=True)
    unfit = Host(**{**_fields(host), "features": fields})
    unfit.require("root")
    for names in ((), ("root", "ptrace")):
        with pytest.raises(HostUnfit, match=r"lacks ptrace: Operation not permitted - allow it"):
            unfit.require(*names)


def _fields(host: Host) -> dict[str, object]:
    return {name: getattr(host, name) for name in Host.__slots__ if not name.startswith("__")}


def test_a_trial_that_crashes_fails_alone() -> None:
    def crash() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    with pytest.raises(Failed, match="died with status -9"):
        in_child(crash)
    outcome = Trial("x", lambda: str(1 / 0), "do not").run()
    assert outcome == {
        "ok": False,
        "detail": "ZeroDivisionError: division by zero",
        "remedy": "do not",
        "needed": False,
    }


@pytest.mark.require("all")
def test_doctor_in_json() -> None:
    answer = doctor("--json")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    told = json.loads(answer.stdout)
    assert told["ok"] is True
    assert told["criu"]["version"] >= "4.2"
    assert Path(told["criu"]["path"]).exists()
    assert told["bpf"] in ("full", "cached", "none")
    assert told["tracking"] in ("write-protect", "soft-dirty", "none")
    if told["tracking"] != "none":
        assert told["features"]["incremental"]["ok"], told["features"]["incremental"]
    for feature in told["features"].values():
        assert set(feature) == {"ok", "detail", "remedy"}


@pytest.mark.require("all")
def test_doctor_for_people() -> None:
    answer = doctor()
    assert answer.returncode == 0
    assert answer.stdout.splitlines()[-1] == "Tasks can be dumped and restored here."
    assert "MISSING" not in answer.stdout


def test_doctor_without_criu(tmp_path) -> None:
    environment = {**os.environ, "SNAPLIB_CRIU": str(tmp_path / "none")}
    answer = doctor(env=environment)
    assert answer.returncode == 177
    assert "MISSING" in answer.stdout
    assert "Remedy:" in answer.stdout
    told = json.loads(doctor("--json", env=environment).stdout)
    assert told["ok"] is False
    assert told["criu"] == {"path": None, "version": None}


@pytest.mark.require("root")
def test_doctor_without_root(tmp_path) -> None:
    package = Path(__file__).parents[2] / "snaplib"
    if any(not parent.stat().st_mode & 1 for parent in [package, *package.parents]):
        pytest.skip("others may not read this checkout")
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.owner() == "root" and str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    answer = doctor(
        "--json",
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={**os.environ, "SNAPLIB_RUNTIME_DIR": str(tmp_path / "run"), "HOME": "/"},
    )
    assert answer.returncode == 177, answer.stderr
    told = json.loads(answer.stdout)
    assert told["features"]["root"]["remedy"] == "run it as root"
    assert not told["features"]["pid_namespace"]["ok"]
