"""Runs in a guest what `tests.guests.without` has for its kernel: leaves out one thing at a time, and runs its test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.guests.image import ROOT
from tests.guests.results import readable, told_in
from tests.guests.without import ALL, FOUND, Without, changed

_TEST_TIMEOUT_S = 300


def outcome_without(one: Without) -> str:
    """Return how the test goes without it; the file is as before afterwards."""
    file = ROOT / one.file
    before = file.read_text()
    file.write_text(changed(one))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.guests.inside.telling"]
    command += ["-p", "no:cacheprovider", "--timeout", str(_TEST_TIMEOUT_S), one.test]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        file.write_text(before)
    # Not by splitlines(): the mark of what is told ends a line there.
    for line in done.stdout.split("\n"):
        print(readable(line), flush=True)
    outcomes = {record.outcome for record in told_in(done.stdout).values()}
    # Of several, such as one a kernel, each has to fail.
    return outcomes.pop() if len(outcomes) == 1 else "not run" if not outcomes else "unclear"


def main(kernel: str) -> int:
    """Try all of a kernel."""
    found: dict[str, str] = {}
    for one in ALL:
        if one.kernel == kernel:
            print(f"without: {one.name}", flush=True)
            found[one.name] = outcome_without(one)
            (Path("/out") / FOUND).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
