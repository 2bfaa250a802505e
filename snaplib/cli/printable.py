"""Text from elsewhere, made fit for a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return text as it is, or escaped where it would move the cursor or cannot be encoded."""
    return text if text.isprintable() else ascii(text)
