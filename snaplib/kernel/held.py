"""A descriptor that an object of ours holds, and closes once."""

from __future__ import annotations

import os
from typing import Self

__all__ = ["HeldDescriptor"]


class HeldDescriptor:
    """What is held by one descriptor; `close` it, or use it as a context manager.

    Args:
        descriptor: This object closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Close it; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
