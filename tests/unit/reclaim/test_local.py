"""Sources on this machine: a file, a command, what a scheduler has put into the environment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from snaplib.errors import UsageError
from snaplib.reclaim import (
    Command,
    FileAppears,
    HtCondor,
    Kubernetes,
    Notice,
    NoticeKind,
    Slurm,
    choose_sources,
    detect,
)


def test_a_file_that_appears_and_goes(step, tmp_path: Path) -> None:
    path = tmp_path / "going"
    source = FileAppears(path)
    assert step(source) == []
    path.write_text("45.5 seconds\n")
    (notice,) = step(source)
    assert (notice.kind, notice.window_s) == (NoticeKind.RECLAIM, 45.5)
    path.unlink()
    assert [one.kind for one in step(source)] == [NoticeKind.CANCELLED]


@pytest.mark.parametrize("text", ["", "soon", "-3", "nan", "inf"])
def test_a_file_that_says_no_time(step, tmp_path: Path, text: str) -> None:
    path = tmp_path / "going"
    path.write_text(text)
    assert [one.window_s for one in step(FileAppears(path))] == [None]


def test_a_folder_counts_too(step, tmp_path: Path) -> None:
    assert [one.window_s for one in step(FileAppears(tmp_path))] == [None]


def watched(source, stop: threading.Event | None = None) -> list[Notice]:
    reported: list[Notice] = []
    source.watch(reported.append, stop or threading.Event())
    return reported


def test_a_command_that_ends() -> None:
    (notice,) = watched(Command("echo 17; exit 0"))
    assert (notice.kind, notice.window_s) == (NoticeKind.RECLAIM, 17.0)


def test_a_command_that_fails_is_started_again(tmp_path: Path) -> None:
    count = tmp_path / "count"
    line = f"echo x >> {count}; [ $(wc -l < {count}) -ge 3 ]"
    notices = watched(Command(line, pause_s=0.0))
    assert [one.kind for one in notices] == [NoticeKind.TROUBLE, NoticeKind.RECLAIM]
    assert "status 1" in notices[0].detail


def test_a_command_is_ended_with_its_watch() -> None:
    stop = threading.Event()
    stop.set()
    assert watched(Command("exec sleep 1000"), stop) == []


def test_slurm_says_when_the_time_is_over() -> None:
    source = Slurm({"SLURM_JOB_END_TIME": "5000"}, now=lambda: 4910.0)
    assert watched(source) == [Notice("slurm", 90.0, detail="the job's time is over")]
    assert watched(Slurm({})) == [], "an old Slurm does not tell"


def test_what_schedulers_leave_after_a_signal(tmp_path: Path) -> None:
    assert Kubernetes({}).window_s == 29.0
    assert Kubernetes({"SNAPLIB_GRACE_PERIOD_S": "90"}).window_s == 89.0
    ad = tmp_path / "ad"
    ad.write_text('Cmd = "run"\nJobMaxVacateTime = 300\nJobStatus = 2\n')
    assert HtCondor({"_CONDOR_JOB_AD": str(ad)}).window_s == 300.0
    assert HtCondor({"_CONDOR_JOB_AD": "/no/such/ad"}).window_s == 120.0


def machine(root: Path, **files: str) -> Path:
    folder = root / "class/dmi/id"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"sys_vendor": "Amazon EC2", "product_name": "c6i.large"}, ["aws"]),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine"}, ["gcp"]),
        (
            {
                "sys_vendor": "Microsoft Corporation",
                "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77",
            },
            ["azure"],
        ),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}, []),
        ({}, []),
    ],
)
def test_clouds_are_known_by_their_firmware(
    tmp_path: Path, files: dict[str, str], found: list[str]
) -> None:
    assert detect(machine(tmp_path, **files), {}) == found


def test_schedulers_are_known_by_their_environment(tmp_path: Path) -> None:
    assert detect(tmp_path, {"SLURM_JOB_ID": "7"}) == ["slurm"]
    assert detect(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == ["kubernetes"]
    assert detect(tmp_path, {"_CONDOR_JOB_AD": "/x"}) == ["htcondor"]


def test_sources_by_name() -> None:
    def names(*words: str) -> list[str]:
        return [one.name for one in choose_sources(words, lambda: ["gcp", "slurm"])]

    assert [one.name for one in choose_sources(None, lambda: ["gcp"])] == ["gcp"]
    assert names("signal") == []
    assert names("aws,auto,aws") == ["aws", "gcp", "slurm"]
    assert names("file=/a,azure", "file=/b") == ["file=/a", "azure", "file=/b"]
    assert names("aws,command=grep -q a,b /run/x") == ["aws", "command=grep -q a,b /run/x"]


@pytest.mark.parametrize("word", ["ibm", "file=", "file", "aws=1"])
def test_what_is_no_source(word: str) -> None:
    with pytest.raises(UsageError, match="no source of notices"):
        choose_sources([word])
