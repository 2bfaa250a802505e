"""What the two guests of `tests.guests.pair` do.

    python moved.py target WAY     has the store and the third party, and takes the task over
    python moved.py source WAY     runs the task until it is told that its machine ends

The third party is a network namespace of the target's with an address of its own, on a bridge with the cable: it
counts what it gets, answers each number, and must not miss one or see the connection break.  That is so when the task
is restored at once (``eager``) and when its memory follows (``lazy``).

With ``cut`` the source loses its power while its last dump is being uploaded: the store takes in a MiB more of it and
then nothing, and the target says so on its output.  What is resumed is the snapshot before; its connection is lost,
and the task makes another.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

SOURCE, TARGET, THIRD = "10.77.0.1", "10.77.0.2", "10.77.0.3"
STORE_PORT, BEHIND_PORT, CONTROL_PORT, THIRD_PORT = 5000, 5001, 7000, 7001
WORK = Path("/srv/moved")
ENVIRONMENT = {
    "AWS_ENDPOINT_URL": f"http://{TARGET}:{STORE_PORT}",
    "AWS_ACCESS_KEY_ID": "guest",
    "AWS_SECRET_ACCESS_KEY": "guest",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
    "SNAPLIB_STORE": "s3://tasks/moved",
}
#: Numbers that go through before the task is saved, and after it was restored.
BEFORE, AFTER = 20, 10
DEADLINE_S = 500.0

#: The store takes in so much of the last dump before it is cut off.
CUT_AFTER_BYTES = 1 << 20

#: Sends a number, waits for the answer; a child, open files and memory that changes take part.
TASK = r"""
import os, socket, sys, time
third, port, known = sys.argv[1], int(sys.argv[2]), sys.argv[3]
book = open(known)
first = book.readline()
gone = open("scratch", "w+"); gone.write("kept"); gone.flush(); os.unlink("scratch")
ask, told = os.pipe(), os.pipe()
if os.fork() == 0:
    while word := os.read(ask[0], 64):
        os.write(told[1], b"%d" % (int(word) * 2))
    os._exit(0)
known = os.urandom(4 << 20)
changing = bytearray(known)
lines = None
number = 0
while True:
    number += 1
    os.write(ask[1], b"%d" % number)
    assert int(os.read(told[0], 64)) == 2 * number, "the child"
    gone.seek(0)
    assert gone.read() == "kept", "the deleted file"
    line = book.readline()
    if not line:
        book.seek(0)
    assert changing == known, "the memory"
    known = known[1:] + known[:1]
    changing[:] = known
    while True:
        try:
            if lines is None:
                lines = socket.create_connection((third, port)).makefile("rw", buffering=1)
            print(number, file=lines, flush=True)
            assert int(lines.readline()) == -number, "the connection"
            break
        except (OSError, ValueError):
            if "lost" not in sys.argv:
                raise
            lines = None
            time.sleep(0.5)
    time.sleep(0.2)
"""
COMMAND = ["python3", "task.py", THIRD, str(THIRD_PORT), "/etc/services"]

#: An emulated machine takes its time.
WINDOW = ["--window", "600"]

#: Options of `snaplib run`, and a further word for the task: its connection may be lost.
OPTIONS = {
    "eager": WINDOW,
    "lazy": WINDOW,
    "cut": [*WINDOW, "--snapshot-every", "10", "--tcp", "close"],
}
FURTHER = {"cut": ["lost"]}


def say(*words: object) -> None:
    print(f"{time.monotonic():7.1f}", *words, flush=True)


def wait_for(condition, what: str, each_s: float = 0.2) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > give_up:
            raise SystemExit(f"not within {DEADLINE_S} s: {what}")
        time.sleep(each_s)


def answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), timeout=5).close()
        return True
    return False


def call(*command: str) -> None:
    subprocess.run(command, check=True)


def start(way: str) -> subprocess.Popen[bytes]:
    """Start the task, or resume it."""
    words = ["snaplib", "run", "--key", "moved", *OPTIONS[way], "--", *COMMAND]
    return subprocess.Popen([*words, *FURTHER.get(way, ())])


def prepare() -> None:
    WORK.mkdir(parents=True)
    os.chdir(WORK)
    Path("task.py").write_text(TASK)
    Path("/etc/services").touch()
    if not Path("/etc/services").read_text():
        Path("/etc/services").write_text("".join(f"line {number}\n" for number in range(99)))
    os.environ.update(ENVIRONMENT)


class Third:
    """The third party, in its own network namespace.

    Attributes:
        talks: The numbers of each connection.
        broken: How the first connection ended; empty while it has not.
    """

    def __init__(self) -> None:
        self.talks: list[list[int]] = []
        self.broken = ""
        ready = threading.Event()
        threading.Thread(target=self._serve, args=(ready,), daemon=True).start()
        ready.wait()

    def got(self, talk: int = 0) -> int:
        """How many numbers came by a connection."""
        return len(self.talks[talk]) if talk < len(self.talks) else 0

    def _serve(self, ready: threading.Event) -> None:
        namespace = os.open("/run/netns/third", os.O_RDONLY)
        os.setns(namespace, os.CLONE_NEWNET)  # of this thread alone
        listener = socket.create_server((THIRD, THIRD_PORT))
        ready.set()
        while True:
            connection, _ = listener.accept()
            self.talks.append([])
            threading.Thread(
                target=self._talk, args=(connection, self.talks[-1]), daemon=True
            ).start()

    def _talk(self, connection: socket.socket, numbers: list[int]) -> None:
        try:
            for line in connection.makefile("r"):
                numbers.append(int(line))
                connection.sendall(b"%d\n" % -int(line))
            ended = "closed"
        except OSError as error:
            ended = str(error)
        if numbers is self.talks[0]:
            self.broken = ended


class Door:
    """What the source reaches the store by: it can be shut in mid-upload.

    Attributes:
        shut: Set when it was: nothing goes through any more, and nobody is told.
    """

    def __init__(self) -> None:
        self.shut = threading.Event()
        self._left: int | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server((TARGET, STORE_PORT), backlog=64)
        threading.Thread(target=self._serve, daemon=True).start()

    def shut_after(self, count: int) -> None:
        """Shut it when the source has sent so many bytes more."""
        with self._lock:
            self._left = count

    def _serve(self) -> None:
        while True:
            near, _ = self._listener.accept()
            threading.Thread(target=self._pass, args=(near,), daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", BEHIND_PORT))
        other = {near: far, far: near}
        while True:
            for ready in select.select([near, far], [], [])[0]:
                try:
                    content = ready.recv(1 << 16)
                    if self._is_shut(len(content) if ready is near else 0):
                        threading.Event().wait()
                    other[ready].sendall(content)
                except OSError:
                    content = b""
                if not content:
                    near.close()
                    far.close()
                    return

    def _is_shut(self, count: int) -> bool:
        with self._lock:
            if self._left is not None:
                self._left -= count
                if self._left < 0:
                    self.shut.set()
        return self.shut.is_set()


def lay_cable() -> None:
    """Have a bridge with the cable and the third party at it."""
    for command in (
        "modprobe -a bridge veth",
        "ip link add br0 type bridge",
        "ip address flush dev eth0",
        "ip link set eth0 master br0",
        f"ip address add {TARGET}/24 dev br0",
        "ip link set br0 up",
        "ip netns add third",
        "ip link add third0 type veth peer name eth0 netns third",
        "ip link set third0 master br0 up",
        f"ip -n third address add {THIRD}/24 dev eth0",
        "ip -n third link set eth0 up",
        "sysctl -qw net.ipv4.conf.br0.arp_notify=1",
    ):
        call(*command.split())


def target(way: str) -> None:
    """Have the store and the third party; when the source is gone, take over its address and its task."""
    prepare()
    lay_cable()
    third = Third()
    with Path("store.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(BEHIND_PORT)],
            stdout=log,
            stderr=log,
        )
    wait_for(lambda: answers("127.0.0.1", BEHIND_PORT), "the store answers")
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{BEHIND_PORT}"
    bucket = "import os, urllib.request as u; u.urlopen(u.Request('{}/tasks', method='PUT'))"
    call(sys.executable, "-c", bucket.format(os.environ["AWS_ENDPOINT_URL"]))
    door = Door()
    say("the store is there")

    listener = socket.create_server((TARGET, CONTROL_PORT))
    wait_for(lambda: third.got() >= BEFORE, "the task talks to the third party")
    connection, _ = listener.accept()
    try:
        take_over = taken_over_after_the_cut if way == "cut" else taken_over
        run = take_over(way, third, door, connection)
        assert run.poll() is None
    finally:
        server.kill()
    say("MOVED")
    sys.stdout.flush()
    os._exit(0)  # whatever threads still wait for


def taken_over(
    way: str, third: Third, door: Door, connection: socket.socket
) -> subprocess.Popen[bytes]:
    """Have the source save the task, and restore it here; nothing is lost."""
    # Now the source may be told; it answers when the task is saved.
    connection.sendall(b"notice\n")
    said = connection.makefile().readline().strip()
    say("the source said", said, "after", third.got(), "numbers")
    assert said == "saved", said
    before = third.got()
    call("ip", "address", "add", f"{SOURCE}/24", "dev", "br0")
    call("ip", "-n", "third", "neigh", "flush", "all")
    lazily = ["snaplib", "restore", "--lazy", "--key", "moved", *WINDOW]
    run = subprocess.Popen(lazily) if way == "lazy" else start(way)
    wait_for(
        lambda: third.got() >= before + AFTER or third.broken or run.poll() is not None,
        "the task goes on",
    )
    say("numbers", third.got(), "connections", len(third.talks), third.broken or "unbroken")
    assert third.talks[0] == list(range(1, third.got() + 1)), third.talks
    assert third.got() >= before + AFTER
    assert len(third.talks) == 1
    assert not third.broken
    return run


def taken_over_after_the_cut(
    way: str, third: Third, door: Door, connection: socket.socket
) -> subprocess.Popen[bytes]:
    """Have the source cut off while it saves the task, and resume the snapshot before."""
    wait_for(
        lambda: snapshots() and time.sleep(5) is None and snapshots(),
        "a snapshot without notice",
        2.0,
    )
    connection.sendall(b"notice\n")
    assert connection.makefile().readline().strip() == "heard"
    door.shut_after(CUT_AFTER_BYTES)
    wait_for(door.shut.is_set, "the last dump is being uploaded")
    print("CUT THE SOURCE OFF", flush=True)
    before, complete = third.got(), snapshots()
    say("cut off after", before, "numbers; complete:", complete)
    run = start(way)
    wait_for(lambda: third.got(1) >= AFTER or run.poll() is not None, "the task goes on")
    numbers = third.talks[1]
    say("numbers", before, "and then", numbers[:1], "to", numbers[-1:])
    assert 1 < numbers[0] <= before + 1, "resumed, and not at its beginning"
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return run


def snapshots() -> list[str]:
    """Return the names of those that are complete."""
    # Imported by name here: the other ways do without, and it takes an emulated machine ten seconds.
    from snaplib.errors import SnaplibError  # noqa: PLC0415
    from snaplib.store import Store  # noqa: PLC0415

    with contextlib.suppress(SnaplibError):
        return [
            one.id for one in Store.open(ENVIRONMENT["SNAPLIB_STORE"], create=False).snapshots()
        ]
    return []


def source(way: str) -> None:
    """Run the task until there is notice."""
    prepare()
    wait_for(lambda: answers(TARGET, STORE_PORT), "the store answers")
    run = start(way)
    control = socket.create_connection((TARGET, CONTROL_PORT))
    lines = control.makefile("rw")
    word = lines.readline().strip()
    say("heard", word)
    if way == "cut":
        print("heard", file=lines, flush=True)
    run.send_signal(signal.SIGTERM)
    status = run.wait()
    say("snaplib run ended with", status)
    # As if this machine were gone: nothing answers for its address any more.
    print("saved" if status == 75 else json.dumps(status), file=lines, flush=True)
    time.sleep(0.5)
    call("ip", "address", "flush", "dev", "eth0")
    call("ip", "link", "set", "eth0", "down")
    if status != 75:
        raise SystemExit(f"the status is {status}")


if __name__ == "__main__":
    {"target": target, "source": source}[sys.argv[1]](sys.argv[2])
