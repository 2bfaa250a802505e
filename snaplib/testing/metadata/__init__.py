"""The metadata services of three clouds, as far as notices go: on loopback, and in the test's hands.

Each behaves as its cloud documents it: tokens that expire, 404 until there is a notice, answers that wait for a change,
events of other machines, and services that do not answer at all.  Give ``url`` (or ``host``) to the source under test,
or ``environment`` to a process that runs ``snaplib run``.
"""

from __future__ import annotations

from snaplib.testing.metadata.aws import FakeAws
from snaplib.testing.metadata.azure import FakeAzure
from snaplib.testing.metadata.gcp import FakeGcp
from snaplib.testing.metadata.service import FakeMetadata

__all__ = ["FakeAws", "FakeAzure", "FakeGcp", "FakeMetadata"]
