"""Save a running Linux task before its machine is taken away, and restore it on another."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
