"""What the two guests of `tests.guests.pair` do.

    python moved.py target     has the store and the third party, and takes the task over
    python moved.py source     runs the task until it is told that its machine ends

The third party is a network namespace of the target's with an address of its own, on a bridge with the cable: it
counts what it gets, answers each number, and must not miss one or see the connection break.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

SOURCE, TARGET, THIRD = "10.77.0.1", "10.77.0.2", "10.77.0.3"
STORE_PORT, CONTROL_PORT, THIRD_PORT = 5000, 7000, 7001
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
BEFORE, AFTER = 20, 20
DEADLINE_S = 500.0

#: Sends a number, waits for the answer; a child and an open file take part.
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
peer = socket.create_connection((third, port))
lines = peer.makefile("rw", buffering=1)
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
    print(number, file=lines, flush=True)
    assert int(lines.readline()) == -number, "the connection"
    time.sleep(0.2)
"""
COMMAND = ["python3", "task.py", THIRD, str(THIRD_PORT), "/etc/services"]


def say(*words: object) -> None:
    print(f"{time.monotonic():7.1f}", *words, flush=True)


def wait_for(condition, what: str) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > give_up:
            raise SystemExit(f"not within {DEADLINE_S} s: {what}")
        time.sleep(0.2)


def answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), timeout=5).close()
        return True
    return False


def call(*command: str) -> None:
    subprocess.run(command, check=True)


def prepare() -> None:
    WORK.mkdir(parents=True)
    os.chdir(WORK)
    Path("task.py").write_text(TASK)
    Path("/etc/services").touch()
    if not Path("/etc/services").read_text():
        Path("/etc/services").write_text("".join(f"line {number}\n" for number in range(99)))
    os.environ.update(ENVIRONMENT)


class Third:
    """The third party, in its own network namespace."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.peers: list[tuple[str, int]] = []
        self.broken = ""
        ready = threading.Event()
        threading.Thread(target=self._serve, args=(ready,), daemon=True).start()
        ready.wait()

    def _serve(self, ready: threading.Event) -> None:
        namespace = os.open("/run/netns/third", os.O_RDONLY)
        os.setns(namespace, os.CLONE_NEWNET)  # of this thread alone
        listener = socket.create_server((THIRD, THIRD_PORT))
        ready.set()
        while True:
            connection, peer = listener.accept()
            self.peers.append(peer)
            try:
                for line in connection.makefile("r"):
                    self.got.append(int(line))
                    connection.sendall(b"%d\n" % -int(line))
                self.broken = "closed"
            except OSError as error:
                self.broken = str(error)


def target() -> None:
    """Have the store and the third party; when the source is gone, take over its address and its task."""
    prepare()
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
    third = Third()
    with Path("store.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", TARGET, "-p", str(STORE_PORT)],
            stdout=log,
            stderr=log,
        )
    wait_for(lambda: answers(TARGET, STORE_PORT), "the store answers")
    bucket = "import urllib.request as u; u.urlopen(u.Request('{}/tasks', method='PUT'))"
    call(sys.executable, "-c", bucket.format(ENVIRONMENT["AWS_ENDPOINT_URL"]))
    say("the store is there")

    listener = socket.create_server((TARGET, CONTROL_PORT))
    wait_for(lambda: len(third.got) >= BEFORE, "the task talks to the third party")
    connection, _ = listener.accept()
    # Now the source may be told; it answers when the task is saved.
    connection.sendall(b"notice\n")
    said = connection.makefile().readline().strip()
    say("the source said", said, "after", len(third.got), "numbers")
    assert said == "saved", said
    before = len(third.got)
    call("ip", "address", "add", f"{SOURCE}/24", "dev", "br0")
    call("ip", "-n", "third", "neigh", "flush", "all")
    run = subprocess.Popen(["snaplib", "run", "--key", "moved", "--", *COMMAND])
    wait_for(
        lambda: len(third.got) >= before + AFTER or third.broken or run.poll() is not None,
        "the task goes on",
    )
    say("numbers", len(third.got), "connections", len(third.peers), third.broken or "unbroken")
    assert third.got == list(range(1, len(third.got) + 1)), third.got
    assert len(third.got) >= before + AFTER
    assert len(third.peers) == 1
    assert not third.broken
    assert run.poll() is None
    connection.close()
    run.send_signal(signal.SIGTERM)
    assert run.wait(300) == 75
    server.kill()
    say("MOVED")


def source() -> None:
    """Run the task until there is notice."""
    prepare()
    wait_for(lambda: answers(TARGET, STORE_PORT), "the store answers")
    run = subprocess.Popen(["snaplib", "run", "--key", "moved", "--", *COMMAND])
    control = socket.create_connection((TARGET, CONTROL_PORT))
    lines = control.makefile("rw")
    word = lines.readline().strip()
    say("heard", word)
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
    {"target": target, "source": source}[sys.argv[1]]()
