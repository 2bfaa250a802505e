"""A task goes on where nothing is shared with where it was but the store."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import snaplib
from snaplib.testing.s3 import S3Server

#: Appends numbers to a file, and does not end before it may.
_TASK = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    for number in range(int(sys.argv[2])):
        print(number, file=file, flush=True)
        while number == 20 and not os.path.exists(sys.argv[1] + ".go"):
            time.sleep(0.01)
"""

#: In a mount namespace of its own with an empty folder where the task worked: restores it there, waits for its end.
_OTHER = """
import sys
from pathlib import Path
import snaplib
store, snapshot, out, lazy = sys.argv[1:]
before = list(Path(out).parent.iterdir())
task = snaplib.restore(
    snaplib.Store.open(store, create=False), snapshot, stdin="/dev/null", stdout="/dev/null",
    lazy=lazy == "lazy",
)
Path(out + ".go").touch()
status = task.wait(90)
task.session.cleanup()
print(before, status.exit_code)
print(Path(out).read_text(), end="")
"""

_COUNT = 200


@pytest.mark.slow
@pytest.mark.require("all")
@pytest.mark.parametrize(
    ("way", "key"), [("eager", "plain"), ("lazy", "plain"), ("lazy", "encrypted")]
)
def test_only_the_store_is_shared(
    way: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is put back from the store, and holds each line once when it has ended."""
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("SNAPLIB_SCRATCH_DIR", str(tmp_path))
    if key == "encrypted":
        monkeypatch.setenv("SNAPLIB_ENCRYPTION_KEY", "env:MY_KEY")
        monkeypatch.setenv("MY_KEY", "42" * 32)
    folder = tmp_path / "work"
    folder.mkdir()
    out = folder / "out"
    with S3Server() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        url = f"s3://{server.new_bucket()}/jobs"
        task = snaplib.Task.launch(
            [sys.executable, "-I", "-S", "-c", _TASK, str(out), str(_COUNT)],
            stdin="/dev/null",
            stdout="/dev/null",
            stderr="/dev/null",
            cwd=folder,
        )
        assert task.session is not None
        deadline = time.monotonic() + 60
        while not out.exists() or out.read_text().count("\n") < 21:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        snapshot = snaplib.dump(task, snaplib.Store.open(url))
        task.session.wait(20)
        task.session.cleanup()
        lines = out.read_text()
        assert lines.count("\n") < _COUNT

        done = subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private", "sh", "-ec"),
                *(
                    'mount -t tmpfs -o mode=755 none "$1"; cd "$1"; shift; exec "$@"',
                    "sh",
                    str(folder),
                ),
                *(sys.executable, "-c", _OTHER, url, snapshot.id, str(out), way),
            ],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    head, _, rest = done.stdout.partition("\n")
    assert head == "[] 0"
    assert rest == "".join(f"{number}\n" for number in range(_COUNT))
    # Here, meanwhile, nothing has happened.
    assert out.read_text() == lines
