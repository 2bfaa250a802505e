"""Notices that this machine is about to be taken away: who gives them, and the window they leave."""

from __future__ import annotations

from snaplib.reclaim.announced import Announced
from snaplib.reclaim.aws import Aws
from snaplib.reclaim.azure import Azure
from snaplib.reclaim.choose import SOURCES, choose_sources
from snaplib.reclaim.detect import detect
from snaplib.reclaim.gcp import Gcp
from snaplib.reclaim.local import Command, FileAppears
from snaplib.reclaim.mailbox import Card, Mailbox
from snaplib.reclaim.notice import Notice, NoticeKind
from snaplib.reclaim.runs import Run, runs_here
from snaplib.reclaim.scheduler import HtCondor, Kubernetes, Slurm
from snaplib.reclaim.source import NoticeSource, PolledSource
from snaplib.reclaim.watchers import Watchers
from snaplib.reclaim.window import Window

__all__ = [
    "SOURCES",
    "Announced",
    "Aws",
    "Azure",
    "Card",
    "Command",
    "FileAppears",
    "Gcp",
    "HtCondor",
    "Kubernetes",
    "Mailbox",
    "Notice",
    "NoticeKind",
    "NoticeSource",
    "PolledSource",
    "Run",
    "Slurm",
    "Watchers",
    "Window",
    "choose_sources",
    "detect",
    "runs_here",
]
