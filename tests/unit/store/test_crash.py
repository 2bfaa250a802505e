"""A writer killed at any moment leaves a whole snapshot, or debris that the next one removes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

from snaplib.store import Store
from snaplib.testing.snapshots import sample_snapshot

_WRITER = """
import sys
from snaplib.store import Store
from snaplib.testing.snapshots import sample_snapshot
store = Store.open(sys.argv[1], create=True)
print("ready", flush=True)
while True:
    print(sample_snapshot(store).id, flush=True)
"""


def test_killed_at_23_moments(tmp_path):
    """What was said to be committed is whole, nothing half is visible, and debris goes."""
    path = tmp_path / "store"
    random.seed(23)
    committed = set()
    for _ in range(23):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, path],
            stdout=subprocess.PIPE,
            text=True,
        )
        with writer:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(random.uniform(0, 0.06))
            writer.send_signal(signal.SIGKILL)
            # The last line may be cut: the manifest was there before it was printed.
            lines = writer.stdout.read().splitlines(keepends=True)
        committed |= {line.strip() for line in lines if line.endswith("\n")}

    store = Store.open(str(path))
    found = set(store.ids())
    assert found >= committed
    for snapshot_id in found:
        assert store.verify(snapshot_id).ok
    store.sweep()
    assert {entry.name for entry in (path / "objects").iterdir()} == found
    assert not list(path.rglob(".writer"))
    assert not list((path / "tmp").iterdir())
    assert store.verify(sample_snapshot(store).id).ok
