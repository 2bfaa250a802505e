"""A task goes on where nothing is shared with where it was but the store.

Two machines that are namespaces of mounts and of the network: each has an empty folder where the task works, and one
cable, which leads to a third where the S3 server is.  The first machine is gone before the second begins.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

#: Appends numbers to a file, waits until it may go on, and says at the end what it still knows.
_TASK = """
import hashlib, os, random, sys, time
known = random.Random(23).randbytes(24 << 20)
with open(sys.argv[1] + "/notes", "w+b") as notes, open(sys.argv[1] + "/out", "a") as out:
    notes.write(known[:70000])
    notes.flush()
    for number in range(int(sys.argv[2])):
        print(number, file=out, flush=True)
        while number == 20 and not os.path.exists(sys.argv[1] + "/go"):
            time.sleep(0.01)
    notes.write(known[-70000:])
    print(hashlib.sha256(known).hexdigest(), open(sys.argv[1] + "/deep/named").read(), file=out)
"""

#: The first machine: makes a bucket as soon as there is a server, starts the task and dumps it.
_FIRST = """
import http.client, json, os, sys, time
from pathlib import Path
import snaplib
task, folder, count, bucket = sys.argv[1:]
host, port = os.environ["AWS_ENDPOINT_URL"].rpartition("/")[2].split(":")
deadline = time.monotonic() + 60
while True:
    try:
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
        connection.request("PUT", "/" + bucket)
        assert connection.getresponse().status == 200
        break
    except OSError:
        assert time.monotonic() < deadline
        time.sleep(0.1)
null = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}
task = snaplib.Task.launch([sys.executable, "-I", "-S", "-c", task, folder, count], cwd=folder, **null)
out = Path(folder, "out")
while not out.exists() or out.read_text().count("\\n") < 21:
    assert time.monotonic() < deadline + 60
    time.sleep(0.01)
Path(folder, "deep").mkdir()
Path(folder, "deep", "named").write_text("was named")
snapshot = snaplib.dump(
    task, snaplib.Store.open(f"s3://{bucket}/jobs"), capture=[f"{folder}/**/named"]
)
task.session.wait(20)
task.session.cleanup()
print(json.dumps({"snapshot": snapshot.id, "lines": out.read_text().count("\\n")}))
"""

#: The second: restores the task and waits for its end.
_SECOND = """
import json, sys
from pathlib import Path
import snaplib
folder, bucket, snapshot, lazy = sys.argv[1:]
before = [path.name for path in Path(folder).iterdir()]
task = snaplib.restore(
    snaplib.Store.open(f"s3://{bucket}/jobs", create=False), snapshot, stdin="/dev/null",
    stdout="/dev/null", lazy=lazy == "lazy",
)
Path(folder, "go").touch()
status = task.wait(90)
task.session.cleanup()
print(json.dumps({
    "before": before, "exit_code": status.exit_code, "out": Path(folder, "out").read_text(),
    "notes": Path(folder, "notes").read_bytes().hex(),
}))
"""

_COUNT = 200
_PORT = 5000
_BUCKET = "the-only-thing-shared"


@attrs.frozen
class Machine:
    """Namespaces that a sleeping process keeps.

    Attributes:
        pid: The process.
    """

    pid: int

    def command(self, *words: str) -> list[str]:
        """Return what runs a command there."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--", *words]

    def run(self, *words: str, environment: dict[str, str] | None = None) -> str:
        """Run a command there and return what it prints."""
        done = subprocess.run(
            self.command(*words),
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Make namespaces of the network and of mounts; everything in them goes with them.

    Args:
        folder: Is empty there, and nobody else's.
    """
    keeper = subprocess.Popen(
        [
            *("unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec"),
            'mount -t tmpfs -o mode=755 none "$1"; ip link set lo up; echo ready; exec sleep 600',
            *("sh", str(folder)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    with keeper:
        try:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == "ready\n"
            yield Machine(keeper.pid)
        finally:
            keeper.kill()


def connect(hub: Machine, other: Machine, network: str) -> str:
    """Lay a cable; return the hub's address at its end."""
    name = f"to-{other.pid}"
    hub.run(*f"ip link add {name} type veth peer name cable netns {other.pid}".split())
    for one, device, host in ((hub, name, 1), (other, "cable", 2)):
        one.run(*f"ip address add {network}.{host}/24 dev {device}".split())
        one.run(*f"ip link set {device} up".split())
    return f"{network}.1"


@contextlib.contextmanager
def s3_server(hub: Machine) -> Iterator[None]:
    """Run moto's S3 server on a machine; nothing else is there, so any port is free."""
    server = subprocess.Popen(
        hub.command(sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(_PORT)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        server.kill()
        server.wait()


def environment(folder: Path, address: str, key: str) -> dict[str, str]:
    """What a machine knows beside the address of the store."""
    found = {
        "SNAPLIB_RUNTIME_DIR": str(folder / "runtime"),
        "SNAPLIB_SCRATCH_DIR": str(folder),
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "not-much-of-a-secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{address}:{_PORT}",
    }
    if key == "encrypted":
        found |= {"SNAPLIB_ENCRYPTION_KEY": "env:MY_KEY", "MY_KEY": "42" * 32}
    return found


@pytest.mark.slow
@pytest.mark.require("all")
@pytest.mark.parametrize(
    ("way", "key"), [("eager", "plain"), ("lazy", "plain"), ("lazy", "encrypted")]
)
def test_only_the_store_is_shared(way: str, key: str, tmp_path: Path) -> None:
    """Its files are put back from the store, and it ends as if nothing had happened."""
    machines, folder = tmp_path / "machine", tmp_path / "machine" / "work"
    machines.mkdir()
    with machine(machines) as hub, s3_server(hub):
        with machine(machines) as first:
            first.run("mkdir", str(folder))
            known = environment(machines, connect(hub, first, "192.0.2"), key)
            words = [_FIRST, _TASK, str(folder), str(_COUNT), _BUCKET]
            dumped = json.loads(first.run(sys.executable, "-c", *words, environment=known))
        assert dumped["lines"] < _COUNT
        with machine(machines) as second:
            second.run("mkdir", str(folder))
            known = environment(machines, connect(hub, second, "198.51.100"), key)
            words = [_SECOND, str(folder), _BUCKET, dumped["snapshot"], way]
            restored = json.loads(second.run(sys.executable, "-c", *words, environment=known))
    memory = random.Random(23).randbytes(24 << 20)
    lines = [*map(str, range(_COUNT)), f"{hashlib.sha256(memory).hexdigest()} was named"]
    assert restored == {
        "before": [],
        "exit_code": 0,
        "out": "".join(f"{line}\n" for line in lines),
        "notes": (memory[:70000] + memory[-70000:]).hex(),
    }
    # Here nothing has happened at all.
    assert list(machines.iterdir()) == []
