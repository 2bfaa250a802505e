"""Eight tasks on one node whose store has bandwidth for about half of them: one plan against everybody for himself."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.harness import machine

SUMMARY = "eight tasks, bandwidth for half of them: one plan against everybody for himself"

SIZES_MIB = (96, 16, 80, 24, 128, 32, 64, 48)
#: Between the starts of two tasks: the first has the most to lose.
STAGGER_S = 1.0
SAVED = 75


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--window", type=float, default=20.0)
    parser.add_argument("--mib-per-s", type=float, default=14.0)


def run(args: argparse.Namespace) -> None:
    """Measure both, and print the table."""
    print(machine())
    print(
        f"{len(SIZES_MIB)} tasks of {sum(SIZES_MIB)} MiB; the store takes {args.mib_per_s:g} MiB/s, "
        f"{args.mib_per_s * args.window:.0f} MiB in the window of {args.window:g} s\n"
    )
    print("| | tasks saved | compute-seconds saved | of |")
    print("|---|---|---|---|")
    for label, shared in (("everybody for himself", False), ("one plan", True)):
        saved, kept_s, all_s = measure(args.window, args.mib_per_s, shared=shared)
        sizes = ", ".join(str(size) for size in sorted(saved))
        print(f"| {label} | {len(saved)} ({sizes} MiB) | {kept_s:.0f} | {all_s:.0f} |", flush=True)


def measure(window_s: float, mib_per_s: float, *, shared: bool) -> tuple[list[int], float, float]:
    """Return the sizes of those saved, their compute-seconds, and those of all."""
    with (
        tempfile.TemporaryDirectory(prefix="node-", dir="/var/tmp") as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        runs: list[tuple[int, float, subprocess.Popen[bytes]]] = []
        stack.callback(_tidy, folder, runs)
        for number, size_mib in enumerate(SIZES_MIB):
            ready = folder / f"ready-{number}"
            runtime = folder / ("run" if shared else f"run-{number}")
            words = [folder / "store", mib_per_s * 2**20, size_mib, window_s, ready]
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.throttled", *map(str, words)],
                env={
                    **os.environ,
                    "SNAPLIB_RUNTIME_DIR": str(runtime),
                    "SNAPLIB_SCRATCH_DIR": name,
                },
                stderr=subprocess.DEVNULL,
            )
            end_s = time.monotonic() + 120
            while not ready.exists():
                assert process.poll() is None, "the task did not start"
                assert time.monotonic() < end_s, "the task did not start in time"
                time.sleep(0.02)
            runs.append((size_mib, time.monotonic(), process))
            time.sleep(STAGGER_S)
        noticed_s = time.monotonic()
        for _size_mib, _began_s, process in runs:
            process.send_signal(signal.SIGUSR1)
        ends = [process.wait(window_s + 120) for _size_mib, _began_s, process in runs]
        ages_s = [noticed_s - began_s for _size_mib, began_s, _process in runs]
        saved = [index for index, end in enumerate(ends) if end == SAVED]
        return (
            [runs[index][0] for index in saved],
            sum(ages_s[index] for index in saved),
            sum(ages_s),
        )


def _tidy(folder: Path, runs: list[tuple[int, float, subprocess.Popen[bytes]]]) -> None:
    for _size_mib, _began_s, process in runs:
        if process.poll() is None:
            process.kill()
            process.wait()
    for path in folder.glob("run*/sessions/*/session.json"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(json.loads(path.read_text())["host_pid"], signal.SIGKILL)
    time.sleep(0.5)
