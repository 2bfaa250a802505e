"""What watching costs the program that is watched, and the watcher: CPU seconds, interleaved with no watch.

Real programs, and two that do nothing but what watching makes dearer: the worst case is not hidden.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from snaplib.kernel import ProcFs
from tests.benchmarks.harness import machine, peak_kib
from tests.benchmarks.programs import REDIS, link_redis

SUMMARY = "CPU that watching costs, by program and way of watching"

#: What a watch may cost in the median over real programs.
LIMIT = 0.02

_CHURN = """
import json, random
chance = random.Random(23)
kept = []
for turn in range(90):
    data = [{"name": f"n{number}", "values": [chance.random() for _ in range(10)]} for number in range(700)]
    kept.append(json.loads(json.dumps(data)))
    if len(kept) > 20:
        del kept[:10]
"""

_OPENS = """
import os
for _ in range(150_000):
    descriptor = os.open("/dev/null", os.O_RDONLY)
    os.read(descriptor, 1)
    os.close(descriptor)
"""

#: Touches fresh pages and gives them back: one fault after the other.
_TOUCH = """
#include <sys/mman.h>
int main(void) {
	for (int turn = 0; turn < 60; turn++) {
		char *pages = mmap(0, 32 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		madvise(pages, 32 << 20, MADV_NOHUGEPAGE);
		for (long at = 0; at < 32 << 20; at += 4096)
			pages[at] = 1;
		munmap(pages, 32 << 20);
	}
}
"""

#: Writes all over 256 MiB: each page that is armed costs a fault at every interval.
_SCATTER = """
#include <sys/mman.h>
int main(void) {
	unsigned long state = 23, size = 256 << 20;
	char *pages = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(pages, size, MADV_NOHUGEPAGE);
	for (long turn = 0; turn < 60000000; turn++) {
		state ^= state << 13, state ^= state >> 7, state ^= state << 17;
		pages[state % size]++;
	}
}
"""

#: Programs that are measured where they are installed, and the Debian packages they are in.
_OPTIONAL = {"samtools sort": "samtools", "redis under load": "redis-tools"}

_MODES = ("none", "sample", "all")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="measure this program alone")
    parser.add_argument("--check", action="store_true", help="fail if the median is over the limit")


def run(args: argparse.Namespace) -> None:
    """Print a table of costs."""
    with tempfile.TemporaryDirectory() as name:
        found = programs(Path(name))
        if args.only:
            found = {args.only: found[args.only]}
        print(f"{machine()}; {args.rounds} rounds")
        for optional, package in _OPTIONAL.items():
            if optional not in found and not args.only:
                print(
                    f"{optional} is left out: `apt-get install --no-install-recommends {package}`"
                )
        print("| program | CPU s | watched, not armed | an eighth armed | all armed | watcher MB |")
        print("|---|---|---|---|---|---|")
        medians: dict[str, list[float]] = {mode: [] for mode in _MODES}
        for program, (command, real) in found.items():
            alone: list[float] = []
            used: dict[str, list[float]] = {mode: [] for mode in _MODES}
            watchers: dict[str, list[float]] = {mode: [] for mode in _MODES}
            memory_kib = 0
            for number in range(args.rounds + 1):
                base, _, _ = _measure(command, None, name)
                for mode in _MODES:
                    task, watcher, peak_kib = _measure(command, mode, name)
                    if number:
                        used[mode].append(task)
                        watchers[mode].append(watcher)
                        memory_kib = max(memory_kib, peak_kib)
                if number:
                    alone.append(base)
            cells = []
            for mode in _MODES:
                # The least disturbed run of each: what else the machine does only ever adds.
                task = min(used[mode]) / min(alone) - 1
                watcher = statistics.median(watchers[mode]) / min(alone)
                cells.append(f"{task:+.1%} (+ watcher {watcher:.1%})")
                if real:
                    medians[mode].append(task + watcher)
            print(
                f"| {program} | {min(alone):.2f} | {' | '.join(cells)} | {memory_kib / 1024:.0f} |",
                flush=True,
            )
        if not any(medians.values()):
            return
        middle = {mode: statistics.median(values) for mode, values in medians.items()}
        print(
            "median over the real programs, watcher included: "
            + ", ".join(f"{mode} {value:+.1%}" for mode, value in middle.items())
        )
        if args.check and middle["none"] > LIMIT:
            raise SystemExit(f"watching costs more than {LIMIT:.0%}")


def _measure(command: list[str], mode: str | None, folder: str) -> tuple[float, float, int]:
    """Return CPU seconds of a program with all its children and of its watcher, and the watcher's peak in KiB."""
    # The program waits until it is watched: so nothing of its run is missed.
    gate = 'read go; exec "$@"'
    task = subprocess.Popen(
        ["sh", "-c", gate, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    watcher = None
    before = 0.0
    if mode is not None:
        watcher = subprocess.Popen(
            [sys.executable, "-m", "snaplib", "watch", str(task.pid), "--arm", mode, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert watcher.stdout is not None
        watcher.stdout.readline()
        before = _cpu_so_far(watcher.pid)
    assert task.stdin is not None
    task.stdin.write(b"\n")
    task.stdin.close()
    _, status, usage = os.wait4(task.pid, 0)
    task.returncode = os.waitstatus_to_exitcode(status)
    if task.returncode != 0:
        raise SystemExit(f"{command[0]} failed")
    used = usage.ru_utime + usage.ru_stime
    if watcher is None:
        return used, 0.0, 0
    # Before it notices: what starting and ending take is no cost of watching for days.
    watching = _cpu_so_far(watcher.pid) - before
    memory_kib = peak_kib(watcher.pid)
    assert watcher.stdout is not None
    watcher.stdout.read()
    watcher.stdout.close()
    watcher.wait()
    return used, watching, memory_kib


def _cpu_so_far(pid: int) -> float:
    """Return the CPU seconds of a process and its children, the freezer's guardian among them."""
    procfs = ProcFs()
    stats = [procfs.stat(one) for one in procfs.tree(pid)]
    return sum(one.user_ticks + one.system_ticks for one in stats) / os.sysconf("SC_CLK_TCK")


def programs(folder: Path) -> dict[str, tuple[list[str], bool]]:
    """Return the programs by name: the command, and whether it is a real one."""
    source = folder / "unit.c"
    source.write_text(
        "\n".join(
            f"int f{number}(int *a, int n) {{ int s = {number}; for (int i = 0; i < n; i++)"
            f" s += a[i] * (s ^ i) % {number + 3}; return s; }}"
            for number in range(350)
        )
    )
    for name, text in (("touch", _TOUCH), ("scatter", _SCATTER)):
        (folder / f"{name}.c").write_text(text)
        subprocess.run(["gcc", "-O1", "-o", folder / name, folder / f"{name}.c"], check=True)
    found = {
        "gcc -O2": (["gcc", "-O2", "-c", str(source), "-o", os.devnull], True),
        "Python, churning objects": ([sys.executable, "-c", _CHURN], True),
        "open, read, close": ([sys.executable, "-c", _OPENS], True),
    }
    if shutil.which("samtools"):
        _make_reads(folder / "reads.sam")
        command = ["samtools", "sort", "-m", "64M", "-O", "bam", "-o", os.devnull]
        found["samtools sort"] = ([*command, str(folder / "reads.sam")], True)
    if shutil.which(REDIS) and shutil.which("redis-benchmark"):
        link_redis(folder)
        found["redis under load"] = (["sh", "-c", _redis()], True)
    found["worst: fresh pages only"] = ([str(folder / "touch")], False)
    found["worst: random writes over 256 MiB"] = ([str(folder / "scatter")], False)
    return found


def _redis() -> str:
    """Return a script that puts a server under load, over TCP on this machine, from 50 connections."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return (
        f"./redis-server --bind 127.0.0.1 --port {port} --save '' --appendonly no >/dev/null & server=$!;"
        f" until redis-cli -p {port} ping >/dev/null; do sleep 0.05; done;"
        f" redis-benchmark -p {port} -n 60000 -r 100000 -d 100 -t set,get,lpush -q >/dev/null;"
        " kill $server; wait $server"
    )


def _make_reads(path: Path) -> None:
    chance = random.Random(23)
    with path.open("w") as file:
        file.write("@SQ\tSN:chr1\tLN:100000000\n")
        for number in range(250_000):
            bases = f"{chance.getrandbits(200):0100b}".translate({48: "A", 49: "C"})[:100]
            at = chance.randrange(1, 99_000_000)
            file.write(f"r{number}\t0\tchr1\t{at}\t60\t100M\t*\t0\t0\t{bases}\t{'I' * 100}\n")
