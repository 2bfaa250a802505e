"""Notices that this machine is about to be taken away, and the window they leave."""

from __future__ import annotations

from snaplib.reclaim.notice import Notice, NoticeKind
from snaplib.reclaim.window import Window

__all__ = ["Notice", "NoticeKind", "Window"]
