"""What watching costs, from what does not depend on what else the machine does.

The cost of one watched event is the difference of the fastest of many short batches of page faults, with
and without a watch. Times the events that a real program makes in a second of its CPU time, that is what
watching takes of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.bench_watch_cost import programs
from tests.benchmarks.harness import machine

SUMMARY = "CPU that watching costs, by counted events and the cost of one"

LIMIT = 0.02

#: Prints the nanoseconds a page of its fastest batch: one fault and one change of resident memory each.
_BATCHES = """
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
int main(void) {
	double best = 1e9;
	for (int turn = 0; turn < 3000; turn++) {
		struct timespec a, b;
		char *pages = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		madvise(pages, 1 << 20, MADV_NOHUGEPAGE);
		clock_gettime(CLOCK_MONOTONIC, &a);
		for (long at = 0; at < 1 << 20; at += 4096)
			pages[at] = 1;
		clock_gettime(CLOCK_MONOTONIC, &b);
		munmap(pages, 1 << 20);
		double ns = ((b.tv_sec - a.tv_sec) * 1e9 + b.tv_nsec - a.tv_nsec) / 256;
		if (ns < best)
			best = ns;
	}
	printf("%f\\n", best);
}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="fail if the median is over the limit")


def run(args: argparse.Namespace) -> None:
    """Print the cost of an event, and a table of programs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "batches.c").write_text(_BATCHES)
        batches = folder / "batches"
        subprocess.run(["gcc", "-O1", "-o", batches, folder / "batches.c"], check=True)
        alone, watched = [], []
        for _ in range(args.rounds):
            alone.append(float(_watched([str(batches)], None, name)[0]))
            watched.append(float(_watched([str(batches)], "none", name)[0]))
        event_ns = min(watched) - min(alone)
        print(machine())
        print(
            f"a page fault that maps a page: {min(alone):.0f} ns, watched {min(watched):.0f} ns:"
            f" {event_ns:.0f} ns more"
        )
        print("| program | CPU s | faults per CPU second | watching takes | watcher, of one CPU |")
        print("|---|---|---|---|---|")
        shares = []
        for program, (command, real) in programs(folder).items():
            _, cpu_s, faults, watcher = _watched(command, "none", name)
            share = faults / cpu_s * event_ns / 1e9
            if real:
                shares.append(share)
            print(
                f"| {program} | {cpu_s:.2f} | {faults / cpu_s:,.0f} | {share:.2%} | {watcher:.2%} |",
                flush=True,
            )
        middle = sorted(shares)[len(shares) // 2]
        print(f"median over the real programs: {middle:.2%}")
        if args.check and middle > LIMIT:
            raise SystemExit(f"watching costs more than {LIMIT:.0%}")


def _watched(command: list[str], mode: str | None, folder: str) -> tuple[str, float, int, float]:
    """Return what a program printed, its CPU seconds, its faults and its watcher's share of a CPU."""
    task = subprocess.Popen(
        ["sh", "-c", 'read go; "$@"; read go', "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        text=True,
        process_group=0,
    )
    assert task.stdin is not None
    assert task.stdout is not None
    if mode is None:
        out, _ = task.communicate("\n\n")
        return out, 0.0, 0, 0.0
    watcher = subprocess.Popen(
        [sys.executable, "-m", "snaplib", "watch", str(task.pid), "--arm", mode, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert watcher.stdout is not None
    first = json.loads(watcher.stdout.readline())
    starting = _ticks(watcher.pid)
    task.stdin.write("\n")
    task.stdin.flush()
    last = first
    # The shell waits when the program has ended: then a profile has all that it did.
    for line in watcher.stdout:
        last = json.loads(line)
        if last["counts"]["exits"] >= 1 and len(last["members"]) == 1:
            break
    watching = (_ticks(watcher.pid) - starting) / os.sysconf("SC_CLK_TCK")
    task.stdin.write("\n")
    task.stdin.close()
    out = task.stdout.read()
    task.stdout.close()
    _, status, usage = os.wait4(task.pid, 0)
    task.returncode = os.waitstatus_to_exitcode(status)
    watcher.stdout.read()
    watcher.stdout.close()
    watcher.wait()
    lasted_s = last["monotonic_s"] - first["monotonic_s"]
    faults = sum(last["faults"].values())
    return out, usage.ru_utime + usage.ru_stime, faults, watching / lasted_s


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
