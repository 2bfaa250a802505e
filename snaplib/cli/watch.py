"""``snaplib watch``: what a task is doing, live."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from snaplib.cli.options import above_zero, add_arm, add_task
from snaplib.cli.output import human_bytes, message

if TYPE_CHECKING:
    from types import FrameType

    from snaplib.observe import Profile, TraceWriter, Watch

__all__ = ["as_json", "as_line", "configure", "run"]

#: The ages for which distinct dirty bytes are printed: the notices that clouds give, and shorter.
_AGES_S = (1, 5, 30, 120)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_task(parser)
    parser.add_argument(
        "--interval",
        type=above_zero("seconds"),
        default=1.0,
        metavar="SECONDS",
        dest="interval_s",
        help="time between two profiles (default: 1)",
    )
    add_arm(parser)
    parser.add_argument("--record", metavar="FILE", help="also record the profiles in a trace")
    parser.add_argument(
        "--json", action="store_true", help="print each profile as one JSON object on a line"
    )
    parser.add_argument(
        "--duration",
        type=above_zero("seconds"),
        metavar="SECONDS",
        dest="duration_s",
        help="stop after so long (default: when the task ends)",
    )


def run(args: argparse.Namespace) -> int:
    """Watch until the task ends, the time is up, or the user has seen enough."""
    # Late: eBPF, numpy and what else a watch needs.
    from snaplib.kernel.footprint import release_code, share_malloc_arena  # noqa: PLC0415
    from snaplib.observe import Watch  # noqa: PLC0415
    from snaplib.task import Task  # noqa: PLC0415

    share_malloc_arena()
    release_code()
    deadline_s = None if args.duration_s is None else time.monotonic() + args.duration_s
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ended_by_signals())
        task = stack.enter_context(Task.attach(args.pid))
        trace = None
        if args.record:
            from snaplib.observe import TraceWriter  # noqa: PLC0415

            trace = stack.enter_context(TraceWriter(args.record))
        try:
            watch = stack.enter_context(Watch(task, args.interval_s, arm=args.arm))
            release_code()
            _follow(watch, _printer(args, stack), trace, deadline_s)
        except _Interrupted:
            return 0
        if watch.ended:
            message(f"the task {args.pid} has ended")
    return 0


class _Interrupted(BaseException):
    """The user has seen enough; it passes every handler of errors, as KeyboardInterrupt does."""


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    def end(_number: int, _frame: FrameType | None) -> None:
        raise _Interrupted

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(
    watch: Watch,
    show: Callable[[Profile], None],
    trace: TraceWriter | None,
    deadline_s: float | None,
) -> None:
    profile: Profile | None = watch.profile()
    while profile is not None:
        if trace is not None:
            trace.write(profile)
        show(profile)
        left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
        profile = watch.wait(profile, left_s)


def _printer(args: argparse.Namespace, stack: contextlib.ExitStack) -> Callable[[Profile], None]:
    if args.json:
        return lambda profile: print(json.dumps(as_json(profile)), flush=True)
    if sys.stdout.isatty():
        from snaplib.cli.watchview import LiveView  # noqa: PLC0415

        return stack.enter_context(LiveView()).show
    shown_notes: set[str] = set()

    def lines(profile: Profile) -> None:
        for note in profile.notes:
            if note not in shown_notes:
                shown_notes.add(note)
                message(note)
        print(as_line(profile), flush=True)

    return lines


def as_line(profile: Profile) -> str:
    """Return a profile as a line for people."""
    about = {"armed": "", "sampled": "~", "faults": ">="}[profile.dirty_basis]
    parts = [
        time.strftime("%H:%M:%S", time.localtime(profile.wall_s)),
        f"resident {human_bytes(profile.resident_bytes)}",
        f"dumpable {human_bytes(profile.dumpable_bytes)}",
        f"dirty {about}{human_bytes(profile.dirty_rate_bytes_s)}/s",
        f"in 30 s {about}{human_bytes(profile.distinct_dirty_bytes(30))}",
        f"processes {len(profile.members)}",
        f"threads {profile.threads}",
        f"descriptors {len(profile.descriptors)}",
        f"sockets {len(profile.sockets)} ({human_bytes(profile.sockets.queued_bytes)} queued)",
    ]
    if profile.losses.total:
        parts.append(f"lost {profile.losses.total}")
    return "  ".join(parts)


def as_json(profile: Profile) -> dict[str, object]:
    """Return what `--json` prints of a profile."""
    import attrs  # noqa: PLC0415  imported by the record itself already

    memory = attrs.asdict(profile.memory)
    memory["resident_bytes"] = profile.resident_bytes
    memory["dumpable_bytes"] = profile.dumpable_bytes
    return {
        "monotonic_s": profile.monotonic_s,
        "wall_s": profile.wall_s,
        "interval_s": profile.interval_s,
        "duration_s": profile.duration_s,
        "pid": profile.pid,
        "source": profile.source,
        "notes": list(profile.notes),
        "cgroup": profile.cgroup,
        "memory": memory,
        "dirty": {
            "basis": profile.dirty_basis,
            "rate_bytes_s": profile.dirty_rate_bytes_s,
            "runs": profile.dirty_runs,
            "distinct_bytes": {str(age): profile.distinct_dirty_bytes(age) for age in _AGES_S},
            "untracked_bytes": profile.untracked_bytes,
            "frozen_s": profile.frozen_s,
        },
        "members": [attrs.asdict(member) for member in profile.members],
        "faults": attrs.asdict(profile.faults),
        "counts": {
            **attrs.asdict(profile.counts),
            "tcp_changes": dict(profile.counts.tcp_changes),
        },
        "descriptors": {
            "total": len(profile.descriptors),
            "by_kind": {kind.value: n for kind, n in profile.descriptors.by_kind().items()},
        },
        "sockets": {
            "total": len(profile.sockets),
            "tcp_by_state": profile.sockets.by_state(),
            "queued_bytes": profile.sockets.queued_bytes,
        },
        "losses": attrs.asdict(profile.losses),
    }
