"""The live view of ``snaplib watch`` on a terminal."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Self

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from snaplib.cli.output import human_bytes, human_seconds
from snaplib.observe import DescriptorKind, Profile

__all__ = ["LiveView", "render", "sparkline"]

_BARS = " ▁▂▃▄▅▆▇█"
_HISTORY = 60
_TOP_SOCKETS = 6
_AGES_S = (1, 5, 30, 120)

#: A dump refuses a task that holds one of these.
_REFUSED = frozenset(
    (
        DescriptorKind.IO_URING,
        DescriptorKind.USERFAULTFD,
        DescriptorKind.PERF,
        DescriptorKind.BPF,
    )
)

_BASES = {
    "armed": "every write is seen",
    "sampled": "estimated from an eighth of the memory",
    "faults": "first touches only: a lower bound",
}


class LiveView:
    """Draws each profile over the one before; use it as a context manager."""

    def __init__(self) -> None:
        # Drawn when a profile comes, not by a thread that wakes up four times a second.
        self._live = Live(auto_refresh=False)
        self._rates: deque[float] = deque(maxlen=_HISTORY)
        self._before: Profile | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, profile: Profile) -> None:
        """Draw a profile."""
        self._rates.append(profile.dirty_rate_bytes_s)
        self._live.update(render(profile, self._before, tuple(self._rates)), refresh=True)
        self._before = profile


def sparkline(values: Sequence[float]) -> str:
    """Return values as a row of bars, the highest full."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BARS[0] * len(values)
    last = len(_BARS) - 1
    # Whatever is not nothing shows at least a little.
    return "".join(_BARS[math.ceil(value * last / top)] for value in values)


def render(profile: Profile, before: Profile | None, rates: Sequence[float]) -> RenderableType:
    """Return the view of a profile.

    Args:
        profile: What to show.
        before: The one before it, for rates.
        rates: The last dirty rates in bytes a second, the newest last.
    """
    root = next((one for one in profile.members if one.pid == profile.pid), None)
    name = root.comm if root is not None else "(the root has ended)"
    parts: list[RenderableType] = [
        Text.assemble(
            (f"{name} {profile.pid}", "bold"),
            f"  {len(profile.members)} processes, {profile.threads} threads",
            f"  CPU {_cpu(profile, before):.0f} %",
            f"  {time.strftime('%H:%M:%S', time.localtime(profile.wall_s))}",
            f"  a look costs {human_seconds(profile.duration_s)}",
        ),
        _dirty(profile, rates),
        _memory(profile),
        _descriptors(profile),
    ]
    if len(profile.sockets):
        parts.append(_sockets(profile))
    if profile.losses.total:
        lost = profile.losses
        parts.append(
            Text(
                f"lost: {lost.events} events, {lost.members} processes, {lost.sockets} sockets,"
                f" {lost.runs} counts, {lost.scans} scans",
                style="bold red",
            )
        )
    parts += [Text(note, style="yellow") for note in profile.notes]
    source = "eBPF" if profile.source == "ebpf" else "/proc"
    return Panel(Group(*parts), title="snaplib watch", subtitle=f"seen with {source}", expand=True)


def _cpu(profile: Profile, before: Profile | None) -> float:
    if before is None or profile.interval_s <= 0:
        return 0.0
    was = {(one.pid, one.start_ticks): one.user_s + one.system_s for one in before.members}
    used = sum(
        one.user_s + one.system_s - was.get((one.pid, one.start_ticks), 0.0)
        for one in profile.members
    )
    return 100 * used / profile.interval_s


def _dirty(profile: Profile, rates: Sequence[float]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, expand=True, title_justify="left")
    table.add_column("written", ratio=3)
    for age in _AGES_S:
        table.add_column(f"in {age} s", justify="right", ratio=2)
    table.add_row(
        f"{human_bytes(profile.dirty_rate_bytes_s)}/s",
        *(human_bytes(profile.distinct_dirty_bytes(age)) for age in _AGES_S),
    )
    return Group(
        table,
        Text.assemble((sparkline(rates), "green"), (f"  {_BASES[profile.dirty_basis]}", "dim")),
    )


def _memory(profile: Profile) -> RenderableType:
    memory = profile.memory
    kinds = [
        ("anonymous", memory.anon_bytes + memory.heap_bytes, True),
        ("stack", memory.stack_bytes, True),
        ("own copies of files", memory.file_cow_bytes, True),
        ("shared memory", memory.shmem_bytes, True),
        ("huge pages", memory.hugetlb_bytes, True),
        ("swap", memory.swap_bytes, True),
        ("programs, libraries", memory.file_clean_bytes, False),
        ("files", memory.file_shared_bytes, False),
    ]
    table = Table(box=box.SIMPLE_HEAD, expand=True)
    table.add_column("memory", ratio=3)
    table.add_column(human_bytes(profile.resident_bytes), justify="right", ratio=2)
    table.add_column(f"in a dump: {human_bytes(profile.dumpable_bytes)}", ratio=4)
    most = max((size for _, size, _ in kinds), default=0) or 1
    for kind, size, dumped in kinds:
        if size:
            bar = "█" * max(1, round(24 * size / most))
            table.add_row(kind, human_bytes(size), Text(bar, style="cyan" if dumped else "dim"))
    return table


def _descriptors(profile: Profile) -> RenderableType:
    text = Text.assemble((f"{len(profile.descriptors)} descriptors", "bold"))
    for kind, count in sorted(profile.descriptors.by_kind().items(), key=lambda one: -one[1]):
        refused = kind in _REFUSED
        text.append(
            f"  {kind.value} {count}" + (" (cannot be dumped)" if refused else ""),
            style="bold red" if refused else "",
        )
    return text


def _sockets(profile: Profile) -> RenderableType:
    sockets = profile.sockets
    table = Table(box=box.SIMPLE_HEAD, expand=True)
    states = ", ".join(f"{count} {state}" for state, count in sockets.by_state().items())
    table.add_column(f"{len(sockets)} sockets", ratio=2)
    table.add_column("state", ratio=2)
    table.add_column("local", ratio=3)
    table.add_column("peer", ratio=3)
    table.add_column("received", justify="right", ratio=1)
    table.add_column("unsent", justify="right", ratio=1)
    array = sockets.array
    fullest = (-(array["receive_queue"].clip(0) + array["send_queue"].clip(0))).argsort(
        kind="stable"
    )
    for index in fullest[:_TOP_SOCKETS].tolist():
        one = sockets[index]
        table.add_row(
            f"{one.family} {one.type}",
            one.state,
            one.local,
            one.peer,
            "?" if one.receive_queue is None else str(one.receive_queue),
            "?" if one.send_queue is None else str(one.send_queue),
        )
    if states:
        table.caption = f"TCP: {states}; {human_bytes(sockets.queued_bytes)} queued in all"
    return table
