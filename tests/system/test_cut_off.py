"""A machine that goes 6 s after a notice of 120 s, in the midst of the dump: little is lost, as was promised.

``python -m tests.benchmarks cut-off`` does the same with a larger task, and after 39 s too.
"""

from __future__ import annotations

import pytest

from tests.system.conftest import Bench
from tests.system.cutoff import LINES_PER_S, cut_off

pytestmark = pytest.mark.slow

EVERY_S = 5.0
#: What the task may work on while a loaded machine gets to stop it.
SLACK_S = 3.0


def test_cut_off_in_the_midst_of_the_dump(bench: Bench) -> None:
    found = cut_off(bench, mib=256, every_s=EVERY_S, after_s=6.0)
    assert found.promised_s == EVERY_S
    # A line takes at least so long, however busy the machine is; what the task does after the notice is not promised.
    assert 0 < found.lost_lines / LINES_PER_S <= EVERY_S + SLACK_S
