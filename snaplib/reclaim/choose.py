"""Sources by name, as ``--reclaim`` has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from snaplib.errors import UsageError
from snaplib.reclaim.aws import Aws
from snaplib.reclaim.azure import Azure
from snaplib.reclaim.detect import detect
from snaplib.reclaim.gcp import Gcp
from snaplib.reclaim.local import Command, FileAppears
from snaplib.reclaim.scheduler import HtCondor, Kubernetes, Slurm
from snaplib.reclaim.source import NoticeSource

__all__ = ["SOURCES", "choose_sources"]

#: By name; ``signal`` is always there, and takes no thread.
SOURCES: dict[str, Callable[[], NoticeSource]] = {
    "aws": Aws,
    "azure": Azure,
    "gcp": Gcp,
    "htcondor": HtCondor,
    "kubernetes": Kubernetes,
    "slurm": Slurm,
}
_WITH_ARGUMENT: dict[str, Callable[[str], NoticeSource]] = {
    "command": Command,
    "file": FileAppears,
}


def choose_sources(
    words: Sequence[str] | None, detected: Callable[[], list[str]] = detect
) -> list[NoticeSource]:
    """Return the sources that some words name.

    Args:
        words: Each a list with commas between, such as ``aws,file=/run/going``; ``auto`` stands for what this machine
            has, ``signal`` for nothing more than signals, and ``command=`` takes all the rest of its word.  None
            means ``auto``.
        detected: Tells what this machine has.

    Raises:
        UsageError: There is no such source.
    """
    names: list[str] = []
    for word in words if words is not None else ["auto"]:
        names += _split(word)
    chosen: dict[str, NoticeSource] = {}
    for name in names:
        for one in detected() if name == "auto" else [name]:
            if one not in chosen and one != "signal":
                chosen[one] = _make(one)
    return list(chosen.values())


def _split(word: str) -> list[str]:
    head, command, rest = word.partition("command=")
    names = [name.strip() for name in head.split(",") if name.strip()]
    return [*names, command + rest] if command else names


def _make(name: str) -> NoticeSource:
    kind, equals, argument = name.partition("=")
    if equals and argument and kind in _WITH_ARGUMENT:
        return _WITH_ARGUMENT[kind](argument)
    if name in SOURCES:
        return SOURCES[name]()
    known = ["auto", "signal", *SOURCES, "file=PATH", "command=CMD"]
    raise UsageError(f"there is no source of notices {name!r}", hint=f"known: {', '.join(known)}")
