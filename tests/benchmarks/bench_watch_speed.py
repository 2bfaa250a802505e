"""How long a watch takes to start, to look and to stop, and how much memory it needs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.benchmarks.harness import machine, peak_kib

SUMMARY = "start, stop, descriptors, sockets and memory of a watch"

#: In ms: what each may take.
LIMITS = {
    "start from cache": 300.0,
    "stop": 200.0,
    "20,000 descriptors": 15.0,
    "10,000 TCP sockets": 20.0,
}
MEMORY_LIMIT_MB = 40.0

_FILES = """
import os, resource, sys
count = int(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(min(count, hard - 20))]
print(len(kept), flush=True)
sys.stdin.readline()
"""

_SOCKETS = """
import resource, socket, sys
count = int(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
server = socket.create_server(("127.0.0.1", 0), backlog=4096)
kept = [server]
while len(kept) < count:
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    client.send(b"x" * 23)
    kept += [client, accepted]
print(len(kept), flush=True)
sys.stdin.readline()
"""

#: Measures in a process of its own, as a watcher is one; prints a JSON object: of each a list of pairs, seconds
#: by the clock and of CPU time.
_WATCHER = """
import json, sys, time
from snaplib.observe import Watch
from snaplib.task import Task
pid, rounds, arm = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
found = {}
def timed(name, work):
    began, began_cpu = time.perf_counter(), time.thread_time()
    work()
    took = time.perf_counter() - began, time.thread_time() - began_cpu
    found.setdefault(name, []).append(took)
for _ in range(rounds):
    watch = Watch(Task.attach(pid), 600.0, arm=arm)
    timed("start", watch.start)
    for _ in range(10):
        timed("look", watch._take)
        timed("descriptors", watch._source._descriptors)
        timed("kernel", watch._source._observer.descriptors)
    timed("stop", watch.close)
status = open("/proc/self/status").read().split()
json.dump([found, int(status[status.index("VmHWM:") + 1])], sys.stdout)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="fail if a figure is over its limit")


def run(args: argparse.Namespace) -> None:
    """Print a table of times."""
    with _task("import sys; print(0, flush=True); sys.stdin.readline()", 0) as (pid, _):
        _watch(pid, 1, "none")  # compiles, should that be needed
        small, small_kib = _watch(pid, args.rounds, "none")
        armed, armed_kib = _watch(pid, args.rounds, "sample")
        memory = [
            ("the library, a small task", small_kib),
            ("the library, an eighth armed", armed_kib),
            ("the command, --json", _command_kib(pid, "--json", terminal=False)),
            ("the command, on a terminal", _command_kib(pid, terminal=True)),
        ]
    with _task(_FILES, 20_000) as (pid, files):
        many_files, files_kib = _watch(pid, args.rounds, "none")
        memory.append((f"the library, {files} descriptors", files_kib))
    with _task(_SOCKETS, 10_000) as (pid, sockets):
        many_sockets, _ = _watch(pid, args.rounds, "none")
    rows = [
        ("start from cache", small["start"], "first profile included"),
        ("start, an eighth armed", armed["start"], "first profile included"),
        ("stop", small["stop"], ""),
        ("a look at a small task", small["look"], "all of a profile"),
        (
            "20,000 descriptors",
            many_files["descriptors"],
            f"{files} of them; RLIMIT_NOFILE allows no more",
        ),
        ("of that in the kernel", many_files["kernel"], ""),
        ("10,000 TCP sockets", many_sockets["descriptors"], f"{sockets}, with queues"),
        ("a look at those", many_sockets["look"], "all of a profile"),
    ]
    print(machine())
    print("| what | ms, median | largest | of CPU, median | limit | |")
    print("|---|---|---|---|---|---|")
    over = []
    for name, pairs, remark in rows:
        seconds, cpu_seconds = zip(*pairs, strict=True)
        middle = statistics.median(seconds) * 1000
        limit = LIMITS.get(name)
        if limit is not None and middle > limit:
            over.append(name)
        print(
            f"| {name} | {middle:.1f} | {max(seconds) * 1000:.1f} |"
            f" {statistics.median(cpu_seconds) * 1000:.1f} |"
            f" {'' if limit is None else f'{limit:.0f}'} | {remark} |"
        )
    print("| a watcher | peak MB |")
    print("|---|---|")
    for name, kib in memory:
        if kib / 1024 > MEMORY_LIMIT_MB and "descriptors" not in name:
            over.append("memory")
        print(f"| {name} | {kib / 1024:.1f} |")
    if args.check and over:
        raise SystemExit(f"over the limit: {', '.join(over)}")


@contextlib.contextmanager
def _task(program: str, count: int) -> Iterator[tuple[int, int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        time.sleep(0.1)


def _command_kib(pid: int, *options: str, terminal: bool) -> int:
    """Return the peak of `snaplib watch` as users run it, an eighth armed, after some profiles."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    watcher = subprocess.Popen(
        [sys.executable, "-m", "snaplib", "watch", str(pid), "--interval", "0.1", *options],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            os.read(ours, 1 << 16)
    found = peak_kib(watcher.pid)
    watcher.terminate()
    with contextlib.suppress(OSError):
        while os.read(ours, 1 << 16):
            pass
    os.close(ours)
    watcher.wait()
    return found


def _watch(pid: int, rounds: int, arm: str) -> tuple[dict[str, list[tuple[float, float]]], int]:
    """Return what the watcher measured, and its peak in KiB."""
    result = subprocess.run(
        [sys.executable, "-c", _WATCHER, str(pid), str(rounds), arm],
        stdout=subprocess.PIPE,
        check=True,
    )
    found, peak = json.loads(result.stdout)
    return found, peak
