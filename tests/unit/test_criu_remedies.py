"""What to do about what CRIU says."""

from __future__ import annotations

import pytest

from snaplib.criu import remedy_for


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("File data/reads.fq has bad size 5004 (expect 5000)", " /data/reads.fq had 5000 bytes"),
        ("File my data/x has bad mode 0100600 (expect 0100644)", "give /my data/x the"),
        ("Can't open file tmp/x on restore: No such file or directory", " /tmp/x was open"),
        ("Can't open file tmp/a b: No such file or directory", " /tmp/a b was open"),
        ("cpu: FPU feature required by image is not supported on host", "CPU"),
        ("inet: Something nobody has seen", ""),
    ],
)
def test_known_reasons(reason: str, says: str) -> None:
    """The culprit is named, and what helps."""
    remedy = remedy_for(["Dump files (pid: 300) failed with -1", reason])
    assert says in f" {remedy}"
    assert bool(remedy) == bool(says)
