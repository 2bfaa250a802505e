"""What becomes of TCP connections: kept, moved within the task, or reset, and locked no longer than needed.

Hosts are network namespaces of the test's own, joined by cables to a third where a peer is.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from snaplib.checkpoint import dump, netlock, restore
from snaplib.checkpoint.connections import Fate
from snaplib.errors import CannotDump, DumpFailed, RestoreFailed
from snaplib.kernel import ProcFs
from snaplib.kernel.syscalls import CLONE_NEWNET, setns, unshare
from snaplib.store import Snapshot, Store
from snaplib.task import Task

pytestmark = pytest.mark.require("all")

NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}
PEER, ADDRESS, OTHER_ADDRESS = "10.23.0.1", "10.23.0.2", "10.23.0.3"

#: Does what it is asked for, in files that are named by a number.
_PUPPET = """
import os, socket, sys, time
number, names = 0, {"socket": socket}
while True:
    path = f"{sys.argv[1]}/{number}"
    if os.path.exists(path + ".ask"):
        try:
            exec(open(path + ".ask").read(), names)
            answer = repr(names.get("answer"))
        except OSError as error:
            answer = type(error).__name__
        with open(path + ".new", "w") as file:
            file.write(answer)
        number += 1
        os.rename(path + ".new", path + ".answer")
    time.sleep(0.005)
"""


class Host:
    """A network namespace."""

    def __init__(self) -> None:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            unshare(CLONE_NEWNET)
            self.descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            setns(before, CLONE_NEWNET)
            os.close(before)
        self.run("ip", "link", "set", "lo", "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be there, and whatever is started meanwhile."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        setns(self.descriptor, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(before, CLONE_NEWNET)
            os.close(before)

    def run(self, *words: str) -> str:
        with self.entered():
            return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def connect(self, hub: Host, address: str) -> None:
        """Lay a cable to the hub, which takes the place of the one that was there."""
        hub_path = f"/proc/{os.getpid()}/fd/{hub.descriptor}"
        with contextlib.suppress(subprocess.CalledProcessError):
            hub.run("ip", "link", "delete", "hub")
        cable = ("type", "veth", "peer", "name", "hub", "netns", hub_path)
        self.run("ip", "link", "add", "leaf", *cable)
        self.run("ip", "address", "add", f"{address}/24", "dev", "leaf")
        self.run("ip", "link", "set", "leaf", "up")
        hub.run("ip", "address", "add", f"{PEER}/24", "dev", "hub")
        hub.run("ip", "link", "set", "hub", "up")

    def locks(self) -> list[str]:
        """Return the tables of CRIU's."""
        return re.findall(r"table inet (CRIU-\S+)", self.run("nft", "list", "tables"))


@pytest.fixture
def make_host() -> Iterator[Callable[[], Host]]:
    """Make hosts that go with the test."""
    made: list[Host] = []

    def make() -> Host:
        made.append(Host())
        return made[-1]

    yield make
    for one in made:
        os.close(one.descriptor)


@pytest.fixture
def hub(make_host: Callable[[], Host]) -> Host:
    """Where the peer is."""
    return make_host()


@pytest.fixture
def host(make_host: Callable[[], Host], hub: Host) -> Host:
    """Where the task is at first."""
    made = make_host()
    made.connect(hub, ADDRESS)
    return made


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep records of sessions to ourselves."""
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "runtime"))


@attrs.define
class Puppet:
    """A task that does what it is asked for, wherever it is."""

    folder: Path
    store: Store
    eventually: Callable[..., None]
    tasks: list[Task] = attrs.field(factory=list)
    numbers: Iterator[int] = attrs.field(factory=itertools.count)
    fates: list[Fate] = attrs.field(factory=list)

    @property
    def task(self) -> Task:
        return self.tasks[-1]

    def start(self, host: Host) -> None:
        command = [sys.executable, "-I", "-S", "-c", _PUPPET, str(self.folder)]
        with host.entered():
            self.tasks.append(Task.launch(command, **NOWHERE))

    def ask(self, code: str) -> str:
        path = self.folder / str(next(self.numbers))
        path.with_suffix(".text").write_text(code)
        path.with_suffix(".text").rename(path.with_suffix(".ask"))
        answer = path.with_suffix(".answer")
        self.eventually(answer.exists, f"an answer to {code}", 30)
        return answer.read_text()

    def connect(self, address: str, listener: socket.socket) -> socket.socket:
        """Have it connect to a server; returns the server's end."""
        self.ask(f"one = socket.create_connection({(address, listener.getsockname()[1])}, 20)")
        listener.settimeout(20)
        accepted, _ = listener.accept()
        accepted.settimeout(20)
        return accepted

    def dump(self, host: Host, **options: object) -> Snapshot:
        with host.entered():
            return dump(self.task, self.store, **options)

    def restore(self, host: Host, snapshot: Snapshot, **options: object) -> None:
        self.fates.clear()
        with host.entered():
            self.tasks.append(
                restore(
                    self.store, snapshot.id, on_connection=self.fates.append, **NOWHERE, **options
                )
            )

    def outcomes(self) -> list[tuple[str, str]]:
        return sorted((one.peer, one.outcome) for one in self.fates)


@pytest.fixture
def puppet(tmp_path: Path, eventually: Callable[..., None]) -> Iterator[Puppet]:
    """A task that is told what to do."""
    folder = tmp_path / "asked"
    folder.mkdir()
    store = Store.open(str(tmp_path / "store"), create=True)
    made = Puppet(folder, store, eventually)
    yield made
    for task in made.tasks:
        end(task)


def end(task: Task) -> None:
    """End a task."""
    if task.session is not None:
        task.session.terminate()
        with contextlib.suppress(TimeoutError):
            task.session.wait(30)
        task.session.cleanup()


def listen(host: Host, address: str = "") -> socket.socket:
    """Return a server that is on a host, while we are not."""
    with host.entered():
        return socket.create_server((address, 0))


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_on_a_host_with_the_same_address(
    lazy: bool, host: Host, hub: Host, make_host: Callable[[], Host], puppet: Puppet
) -> None:
    """A connection to elsewhere lives on, and a server in the task keeps listening."""
    puppet.start(host)
    with listen(hub) as listener, puppet.connect(PEER, listener) as peer:
        port = int(
            puppet.ask("server = socket.create_server(('', 0))\nanswer = server.getsockname()[1]")
        )
        puppet.ask("one.sendall(b'before')")
        assert peer.recv(100) == b"before"
        snapshot = puppet.dump(host)
        peer.sendall(b"while it was away")

        second = make_host()
        host.run("ip", "link", "delete", "leaf")
        # The peer repeats what it has sent: from when the restore begins it must not be told that nobody is there.
        beginning = [lambda: second.connect(hub, ADDRESS)]

        def at_stage(stage: str, _bytes: float) -> None:
            if stage == "reading":
                beginning.pop()()
                puppet.eventually(lambda: " retrans:" in hub.run("ss", "-tin"), "it is repeated")

        puppet.restore(second, snapshot, lazy=lazy, progress=at_stage)
        assert not puppet.fates
        assert puppet.ask("answer = one.recv(100)") == "b'while it was away'"
        puppet.ask("one.sendall(b'after')")
        assert peer.recv(100) == b"after"
        with hub.entered(), socket.create_connection((ADDRESS, port), 20) as client:
            puppet.ask("accepted = server.accept()[0]\naccepted.sendall(b'served')")
            assert client.recv(100) == b"served"
    assert not second.locks()


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_on_a_host_with_another_address(
    lazy: bool, host: Host, hub: Host, make_host: Callable[[], Host], puppet: Puppet
) -> None:
    """A connection to elsewhere is reset, one within the task lives on, and a server keeps listening."""
    puppet.start(host)
    with listen(hub) as listener, puppet.connect(PEER, listener) as peer:
        port = int(
            puppet.ask("server = socket.create_server(('', 0))\nanswer = server.getsockname()[1]")
        )
        puppet.ask(
            f"with socket.create_server(({ADDRESS!r}, 0)) as other:\n"
            "    mine = socket.create_connection(other.getsockname(), 20)\n"
            "    yours = other.accept()[0]\n"
            "    yours.settimeout(20)\n"
            "dual = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True)\n"
            f"plain = socket.create_connection(({ADDRESS!r}, dual.getsockname()[1]), 20)\n"
            "mapped = dual.accept()[0]\n"
            "mapped.settimeout(20)\n"
        )
        peer.sendall(b"unread")
        puppet.ask("mine.sendall(b'on the way')\nanswer = one.recv(3, socket.MSG_PEEK)")
        snapshot = puppet.dump(host)
        assert snapshot.extra["network"]["addresses"] == [ADDRESS]

        second = make_host()
        host.run("ip", "link", "delete", "leaf")
        second.connect(hub, OTHER_ADDRESS)
        puppet.restore(second, snapshot, lazy=lazy)
        assert puppet.outcomes() == [("elsewhere", "reset"), *[("task", "moved")] * 4]
        assert puppet.ask("answer = one.recv(100)") == "b'unread'"
        assert puppet.ask("answer = one.recv(100)") == "ConnectionResetError"
        assert puppet.ask("answer = yours.recv(100)") == "b'on the way'"
        for left, right in (("yours", "mine"), ("plain", "mapped"), ("mapped", "plain")):
            puppet.ask(f"{left}.sendall(b'{left}')")
            assert puppet.ask(f"answer = {right}.recv(100)") == f"b'{left}'"
        with hub.entered(), socket.create_connection((OTHER_ADDRESS, port), 20) as client:
            puppet.ask("accepted = server.accept()[0]\naccepted.sendall(b'served')")
            assert client.recv(100) == b"served"
    assert not second.locks()


def test_established_there_or_not_at_all(
    host: Host, hub: Host, make_host: Callable[[], Host], puppet: Puppet
) -> None:
    """What is asked to be kept and cannot be fails the restore, which says so."""
    puppet.start(host)
    with listen(hub) as listener, puppet.connect(PEER, listener):
        snapshot = puppet.dump(host)
        second = make_host()
        second.connect(hub, OTHER_ADDRESS)
        with pytest.raises(RestoreFailed, match="bind") as raised:
            puppet.restore(second, snapshot, tcp="established")
        assert "--tcp auto" in raised.value.hint
        puppet.restore(host, snapshot, tcp="close")
        assert puppet.outcomes() == [("elsewhere", "reset")]
        assert puppet.ask("answer = one.recv(100)") == "ConnectionResetError"


def test_a_server_that_needs_an_address(
    host: Host, make_host: Callable[[], Host], puppet: Puppet
) -> None:
    """A server cannot listen at an address that is not there, and the error says at which."""
    puppet.start(host)
    port = puppet.ask(
        f"server = socket.create_server(({ADDRESS!r}, 0))\nanswer = server.getsockname()[1]"
    )
    snapshot = puppet.dump(host)
    with pytest.raises(RestoreFailed) as raised:
        puppet.restore(make_host(), snapshot)
    assert f"{ADDRESS}:{port}" in raised.value.hint


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_to_another_process_of_the_host(
    where: str, host: Host, make_host: Callable[[], Host], puppet: Puppet
) -> None:
    """A connection within the host lives on there only: elsewhere nobody is meant by its addresses."""
    puppet.start(host)
    second = make_host()
    with listen(host, "127.0.0.1") as listener:
        port = listener.getsockname()[1]
        with puppet.connect("127.0.0.1", listener) as peer, second.entered():
            somebody = socket.create_server(("127.0.0.1", port))
            with somebody:
                snapshot = puppet.dump(host)
                puppet.restore(host if where == "here" else second, snapshot)
                if where == "here":
                    assert not puppet.fates
                    peer.sendall(b"still here")
                    assert puppet.ask("answer = one.recv(100)") == "b'still here'"
                else:
                    assert puppet.outcomes() == [("host", "reset")]
                    assert puppet.ask("answer = one.recv(100)") == "ConnectionResetError"


def test_a_connection_that_another_has(host: Host, hub: Host, puppet: Puppet) -> None:
    """The task runs on, and so does its connection: that of a copy of it is reset, and nobody else's."""
    puppet.start(host)
    with listen(hub) as listener, puppet.connect(PEER, listener) as peer:
        snapshot = puppet.dump(host, leave_running=True)
        assert not host.locks()
        seen: list[list[str]] = []
        puppet.restore(host, snapshot, progress=lambda _stage, _bytes: seen.append(host.locks()))
        assert not any(seen)
        assert puppet.outcomes() == [("elsewhere", "reset")]
        # Only one of them can be asked.
        end(puppet.tasks.pop())
        puppet.ask("one.sendall(b'mine')")
        assert peer.recv(100) == b"mine"


def test_what_the_peer_had_ended(
    host: Host, hub: Host, make_host: Callable[[], Host], puppet: Puppet
) -> None:
    """Where the peer has said its last, that and the end of it are there to be read."""
    puppet.start(host)
    with listen(hub) as listener:
        with puppet.connect(PEER, listener) as peer:
            peer.sendall(b"the last")
        puppet.ask("answer = one.recv(8, socket.MSG_PEEK | socket.MSG_WAITALL)")
        # Its end has come when there is nothing after what can be read.
        puppet.eventually(lambda: "CLOSE-WAIT" in host.run("ss", "-tan"), "the end has come")
        snapshot = puppet.dump(host)
        puppet.restore(make_host(), snapshot)
        assert puppet.outcomes() == [("elsewhere", "reset")]
        assert puppet.ask("answer = one.recv(100)") == "b'the last'"
        assert puppet.ask("answer = one.recv(100)") == "b''"


def test_without_a_loopback(host: Host, make_host: Callable[[], Host], puppet: Puppet) -> None:
    """CRIU would wait for ever."""
    puppet.start(host)
    second = make_host()
    second.run("ip", "link", "set", "lo", "down")
    with pytest.raises(CannotDump, match="loopback"):
        puppet.dump(second)
    snapshot = puppet.dump(host)
    with pytest.raises(RestoreFailed, match="loopback"):
        puppet.restore(second, snapshot)


def test_what_was_not_accepted(host: Host, hub: Host, puppet: Puppet) -> None:
    """A busy server is saved; who was not accepted is told so after the restore, and may come again."""
    puppet.start(host)
    port = int(
        puppet.ask("server = socket.create_server(('', 0))\nanswer = server.getsockname()[1]")
    )
    with hub.entered(), socket.create_connection((ADDRESS, port), 20) as early:
        puppet.restore(host, puppet.dump(host))
        # It may be told before it sends or after.
        with pytest.raises(ConnectionError):
            early.sendall(b"anybody?") or early.recv(100)
        with socket.create_connection((ADDRESS, port), 20) as late:
            puppet.ask("accepted = server.accept()[0]\naccepted.sendall(b'served')")
            assert late.recv(100) == b"served"


@pytest.mark.parametrize("connected", [False, True])
def test_no_lock_is_left(connected: bool, host: Host, puppet: Puppet) -> None:
    """Connections stay locked until the task is restored, and nothing is left of that afterwards."""
    puppet.start(host)
    if connected:
        puppet.ask(
            "with socket.create_server(('127.0.0.1', 0)) as server:\n"
            "    mine = socket.create_connection(server.getsockname(), 20)\n"
            "    yours = server.accept()[0]\n"
        )
    snapshot = puppet.dump(host)
    assert len(host.locks()) == connected
    puppet.restore(host, snapshot)
    assert not host.locks()
    if connected:
        puppet.ask("mine.sendall(b'x')")
        assert puppet.ask("answer = yours.recv(100)") == "b'x'"


def test_only_the_tasks_connections_are_locked(host: Host, hub: Host, puppet: Puppet) -> None:
    """While it is dumped others go on, with the same peer and from the same address."""
    puppet.start(host)
    with listen(hub) as listener, puppet.connect(PEER, listener) as peer:
        with host.entered():
            mine = socket.create_connection((PEER, listener.getsockname()[1]), 20)
        with mine, listener.accept()[0] as other:
            seen: list[str] = []

            def look(stage: str, _bytes: float) -> None:
                if stage == "committed":
                    mine.sendall(b"not locked")
                    other.settimeout(20)
                    assert other.recv(100) == b"not locked"
                    (name,) = host.locks()
                    seen.append(host.run("nft", "list", "table", "inet", name))

            snapshot = puppet.dump(host, progress=look)
            local, port = peer.getpeername(), peer.getsockname()[1]
            there = f"{PEER} . {port} . {ADDRESS} . {local[1]}"
            back = f"{ADDRESS} . {local[1]} . {PEER} . {port}"
            assert sorted(re.findall(r"10\.\S+ \. \d+ \. 10\.\S+ \. \d+", seen[0])) == sorted(
                [there, back]
            )
            assert "timeout 15m30s" in seen[0]
            puppet.restore(host, snapshot)
            assert not host.locks()


def test_a_lock_ends_by_itself(
    host: Host,
    hub: Host,
    puppet: Puppet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever is killed when: the kernel forgets it, and what is left goes with the next dump."""
    monkeypatch.setattr(netlock, "LOCK_S", 1)
    puppet.start(host)
    with listen(hub) as listener, puppet.connect(PEER, listener):
        puppet.dump(host)
    (name,) = host.locks()
    puppet.eventually(
        lambda: "expires" not in host.run("nft", "list", "table", "inet", name), "it has ended"
    )
    with host.entered():
        netlock.remove_old_locks()
    assert not host.locks()


#: Dumps a task and is killed at a stage of it.
_KILLED = """
import os, signal, sys
from snaplib.checkpoint import dump
from snaplib.store import Store
from snaplib.task import Task
def die(stage, _bytes):
    if stage == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
dump(Task.attach(int(sys.argv[1])), Store.open(sys.argv[2]), progress=die)
"""


@pytest.mark.parametrize("stage", ["frozen", "dumped"])
def test_killed_between_lock_and_unlock(stage: str, host: Host, hub: Host, puppet: Puppet) -> None:
    """CRIU finds nobody to answer it: it takes the lock away, and lets the task and its connection go on."""
    puppet.start(host)
    with listen(hub) as listener, puppet.connect(PEER, listener) as peer:
        with host.entered():
            words = [sys.executable, "-c", _KILLED, str(puppet.task.pid), puppet.store.url, stage]
            done = subprocess.run(words, check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL
        peer.sendall(b"still there?")
        assert puppet.ask("answer = one.recv(100)") == "b'still there?'"
        puppet.eventually(lambda: not host.locks(), "the lock is gone")


def criu_of(pid: int) -> int:
    """Return the process that is CRIU's, of all that come from another."""
    procfs = ProcFs()
    (found,) = (one for one in procfs.tree(pid) if procfs.stat(one).comm == "criu")
    return found


def test_a_criu_that_was_killed_leaves_no_lock(host: Host, hub: Host, puppet: Puppet) -> None:
    """The task runs on, and so does its connection; what locks those of nobody here may be wanted."""
    host.run("nft", "add", "table", "inet", "CRIU-somebody")
    puppet.start(host)
    with listen(hub) as listener, puppet.connect(PEER, listener) as peer:

        def kill(stage: str, _bytes: float) -> None:
            if stage == "dumped":
                assert len(host.locks()) == 2
                os.kill(criu_of(os.getpid()), signal.SIGKILL)

        with pytest.raises(DumpFailed):
            puppet.dump(host, progress=kill, leave_running=True)
        assert host.locks() == ["CRIU-somebody"]
        peer.sendall(b"still there?")
        assert puppet.ask("answer = one.recv(100)") == "b'still there?'"
