"""What a supervisor that waits does not hold: it has 60 MB, half of which is Python and numpy."""

from __future__ import annotations

import subprocess
import sys

#: Each is 2 MB and more.
HEAVY = ("numpy.ma", "_hashlib", "ssl", "urllib3", "obstore", "google.protobuf", "bcc")
SCRIPT = """
import sys
import snaplib.cli.run, snaplib.history, snaplib.observe, snaplib.supervise
from snaplib.forecasting import Models
from snaplib.observe.growth import Growth
from snaplib.task import default_key

default_key(["x"], "/")
growth = Growth()
growth.add(0.0, 0)
growth.add(1.0, 4096)
print(*(name for name in sys.argv[1:] if name in sys.modules))

# Random numbers bring what makes keys of them.
from snaplib.testing.dumps import HOST, STORE, SimulatedHost

Models.learn(SimulatedHost().records(120), host=HOST, store=STORE)
print("numpy.ma" * ("numpy.ma" in sys.modules))
"""


def test_what_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *HEAVY], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
