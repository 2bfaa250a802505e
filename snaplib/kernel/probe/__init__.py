"""What this kernel lets this process do, found by trying each thing once.

`probe_kernel` runs the trials in a process of their own (``python -m snaplib.kernel.probe``): one
that crashes, hangs or forks harms nobody, and what a trial changes ends with it.
"""

from __future__ import annotations

from snaplib.kernel.probe.feature import Feature
from snaplib.kernel.probe.runner import probe_kernel

__all__ = ["Feature", "probe_kernel"]
