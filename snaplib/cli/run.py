"""``snaplib run``: start a command, or resume it; save it when notice is given."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, Self, TextIO

from snaplib.cli.notices import NOTICES, early_notices
from snaplib.cli.options import above_zero, add_files, add_store, whole, zero_or_more
from snaplib.cli.output import human_bytes, human_seconds, message
from snaplib.errors import EXIT_SAVED, RootRequired, UsageError
from snaplib.event import Event
from snaplib.kernel.footprint import share_malloc_arena
from snaplib.reclaim import choose_sources
from snaplib.scratch import sweep_scratch
from snaplib.store import Store
from snaplib.store.rates import bytes_per_s
from snaplib.supervise import (
    MAX_OVERHEAD_PERCENT,
    ON_RESTORE_FAILURE,
    FullDump,
    SaverFactory,
    Supervisor,
    warm_saver,
)

__all__ = ["EventLog", "add_supervision", "choose_saver", "configure", "obey_signals", "run"]

_PASSED_ON = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.usage = "snaplib run [OPTIONS] -- CMD ..."
    add_store(parser)
    parser.add_argument(
        "--key",
        help="what the snapshots are found by (default: made from the working directory and the command)",
    )
    add_supervision(parser)
    again = parser.add_argument_group("when it is run again")
    again.add_argument(
        "--once",
        action="store_true",
        help="if the command has ended before, exit with its status instead of running it again",
    )
    again.add_argument(
        "--keep",
        action="store_true",
        help="keep the snapshots of a task that has ended with 0 (default: they are deleted)",
    )
    again.add_argument(
        "--max-attempts",
        type=whole(1),
        metavar="N",
        help="how often the task may be started or resumed before it has ended; then exit with 178 (default: no limit)",
    )
    again.add_argument(
        "--on-restore-failure",
        choices=ON_RESTORE_FAILURE,
        default="fail",
        help="when the snapshot cannot be restored: fail with 176, or restart the command (default: fail)",
    )
    parser.add_argument(
        "--adopt-orphans",
        action="store_true",
        help="processes that lose their parent, such as daemons, become the command's own, so that they are saved "
        "with it (a command that waits for all its children waits for them too)",
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- CMD ...", help="the command to run"
    )


def add_supervision(parser: argparse.ArgumentParser) -> None:
    """Add the options of everything that looks after a task."""
    parser.add_argument(
        "--events", metavar="FILE", help="append one JSON line a change of state to FILE"
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="say nothing on stderr but errors"
    )
    notices = parser.add_argument_group("notices")
    notices.add_argument(
        "--reclaim",
        action="append",
        metavar="SOURCE,...",
        help="who gives notice: aws, gcp, azure, kubernetes, slurm, htcondor, file=PATH, command=CMD; SIGTERM, SIGUSR1 "
        "and `snaplib notice` always do (default: auto, what is found here)",
    )
    notices.add_argument(
        "--window",
        type=above_zero("seconds"),
        metavar="SECONDS",
        help="how long after a notice the machine lasts, where the notice does not say (default: what this machine's "
        "cloud or scheduler usually leaves, else 120)",
    )
    notices.add_argument(
        "--priority",
        type=int,
        default=0,
        metavar="N",
        help="of the tasks of one node that must be saved at once, those of a higher one come first (default: 0)",
    )
    notices.add_argument(
        "--exit-saved",
        type=whole(0, 255),
        default=EXIT_SAVED,
        metavar="N",
        help=f"the exit status for: saved, run me again (default: {EXIT_SAVED})",
    )
    saving = parser.add_argument_group("saving")
    saving.add_argument(
        "--snapshot-every",
        type=above_zero("seconds"),
        metavar="SECONDS",
        help="save the task so often while it runs on: so much is lost at most if the machine goes without notice, or "
        "early (default: only where the plan finds the window too short)",
    )
    saving.add_argument(
        "--max-overhead",
        type=zero_or_more("percent"),
        default=MAX_OVERHEAD_PERCENT,
        metavar="PERCENT",
        help="how much of one CPU copying ahead may take, unless the window needs more; 0 copies nothing ahead "
        f"(default: {MAX_OVERHEAD_PERCENT:g})",
    )
    saving.add_argument(
        "--max-copy-rate",
        metavar="RATE",
        help="how much memory may be copied ahead each second on average, whatever the window needs, such as 2MB; "
        "counted before it is compressed; dumps are not limited (default: no limit)",
    )
    saving.add_argument(
        "--tcp",
        choices=("auto", "established", "close"),
        default="auto",
        help="what becomes of connected TCP sockets: auto keeps those that can live on where the task is restored and "
        "resets the others, established keeps all or fails, close resets all (default: auto)",
    )
    add_files(saving)


def run(args: argparse.Namespace) -> int:
    """Run the command to its end, or until it is saved."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError(
            "there is no command to run", hint="put it behind --: snaplib run -- CMD ..."
        )
    if os.geteuid() != 0:
        raise RootRequired("saving a task needs root")
    share_malloc_arena()
    sweep_scratch()
    with EventLog(args.events, quiet=args.quiet) as log:
        supervisor = Supervisor(
            command,
            store=Store.open(args.store, create=True),
            key=args.key,
            window_s=args.window,
            reclaim=choose_sources(args.reclaim),
            tcp=args.tcp,
            files=args.files,
            capture=args.capture,
            exit_saved=args.exit_saved,
            on_restore_failure=args.on_restore_failure,
            max_attempts=args.max_attempts,
            once=args.once,
            priority=args.priority,
            snapshot_every_s=args.snapshot_every,
            keep_snapshots=args.keep,
            saver=choose_saver(args),
            adopt_orphans=args.adopt_orphans,
            on_event=log,
        )
        obey_signals(supervisor)
        return supervisor.run()


def choose_saver(args: argparse.Namespace) -> SaverFactory:
    """Return how the task is copied ahead and saved, as the options say.

    Raises:
        UsageError: The rate means nothing.
    """
    rate = args.max_copy_rate and bytes_per_s(args.max_copy_rate, "a copy rate")
    return warm_saver(args.max_overhead, rate) if args.max_overhead else FullDump


def obey_signals(supervisor: Supervisor) -> None:
    """Take SIGTERM and SIGUSR1 as notices and pass other signals on to the task."""
    for number in NOTICES:
        signal.signal(number, lambda _number, _frame: supervisor.notice(source="signal"))
    if early_notices():
        supervisor.notice(source="signal")
    for number in (signal.SIGWINCH, signal.SIGCONT):
        signal.signal(number, lambda _number, _frame: supervisor.refresh_terminal())
    for number in _PASSED_ON:
        # Where nohup had us started it is for the task, too.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda passed, _frame: _pass_on(supervisor, passed))


def _pass_on(supervisor: Supervisor, number: int) -> None:
    """Give a signal to the task; before there is one it ends us, as it would any command, and leaves what is saved."""
    if not supervisor.signal(number):
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


class EventLog:
    """Tells events: a line for people on stderr, a JSON line in a file.

    Args:
        path: The file to append to, if any.
        quiet: Whether people are told nothing.
    """

    def __init__(self, path: str | None, *, quiet: bool) -> None:
        self._quiet = quiet
        self._path = path
        #: Whether events could not be written, and whether the last one was so in part.
        self._failed = self._cut = False
        self._file: TextIO | None = None
        if path:
            try:
                self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - __exit__ closes it
            except OSError as error:
                raise UsageError(
                    f"the events file {path} cannot be written: {error.strerror}",
                    hint="name another one with --events",
                ) from error

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the file."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()

    def __call__(self, event: Event) -> None:
        """Tell one event."""
        if self._file:
            self._record(self._file, event)
        if not self._quiet:
            line = _for_people(event)
            if line:
                self._say(line)

    def _record(self, file: TextIO, event: Event) -> None:
        line = ("\n" if self._cut else "") + json.dumps(event.to_json()) + "\n"
        try:
            self._cut = os.write(file.fileno(), line.encode()) < len(line)
        except OSError as error:
            # The task must not pay for it; the next event may find room again.
            if not self._failed:
                self._failed = True
                self._say(
                    f"events cannot be written to {self._path}: {error.strerror}; the task goes on"
                )

    def _say(self, line: str) -> None:
        try:
            message(line)
        except OSError:
            # Whoever read our stderr went away; the task goes on.
            sys.stderr = None
            self._quiet = True


def _for_people(event: Event) -> str:
    details = event.details
    match event.name:
        case "started":
            # It may have ended before anybody could look.
            pid = f"pid {details['pid']}, " if details["pid"] else ""
            return f"started {details['command']} ({pid}key {event.key})"
        case "not_started":
            return "notice came before anything was started; run the same command again"
        case "adopted":
            return f"took over the task of a supervisor that died (pid {details['pid']}, key {event.key})"
        case "restored":
            seconds = human_seconds(details["restore_s"])
            return f"restored snapshot {details['snapshot']} in {seconds} (pid {details['pid']})"
        case "promise":
            return _promise(details)
        case "snapshot_failed":
            return (
                f"snapshot failed: {details['reason']}; the task runs on, and {human_seconds(details['unsaved_s'])} of "
                f"its work would be lost; tried again in {human_seconds(max(0.0, details['again_s'] or 0.0))}"
            )
        case "waiting":
            when = details["start_s"]
            turn = (
                f"its turn is in about {human_seconds(when)}"
                if when is not None
                else "there may not be time"
            )
            return f"{details['ahead']} other tasks of this node are saved first; {turn}"
        case "ended_before":
            return (
                f"the command has ended before, at {details['ended_at'][:19]} UTC; this is its status again, and "
                "without --once it would run again"
            )
        case "notice":
            seconds = human_seconds(details["window_s"])
            who = "" if details["source"] == "signal" else f" ({_who(details)})"
            return f"notice: this machine ends in {seconds}{who}; saving the task"
        case "hint":
            return f"this machine may end soon ({_who(details)})"
        case "notice_cancelled":
            return f"notice taken back by {details['source']}: the task runs on"
        case "window_moved":
            return f"notice: this machine now ends in {human_seconds(details['window_s'])} ({details['source']})"
        case "source_failed":
            return f"source of notices {details['source']}: {details['reason']}; asking on"
        case "copied" if details.get("first") and event.state == "running":
            return (
                f"copied {human_bytes(details['warm_bytes'])} ahead: {details['reason']}; from now on only what "
                "changes is copied (--max-overhead and --max-copy-rate limit it)"
            )
        case "plan" if details["strategy"] != "full":
            return f"plan: {details['strategy']}, because {details['reasons'][0]}"
        case "plan_failed":
            return f"there is no plan: {details['reason']}; memory is copied ahead all the same"
        case "copy_failed":
            return f"nothing is copied ahead: {details['reason']}"
        case "saved" if "memory_bytes" in details:
            return (
                f"saved snapshot {details['snapshot']}: {_saved_memory(details)} as "
                f"{human_bytes(details['stored_bytes'])}, frozen {human_seconds(details['frozen_s'])}, "
                f"all in {human_seconds(details['dump_s'])}; run the same command again to go on"
            )
        case "saved":
            return f"saved snapshot {details['snapshot']}; run the same command again to go on"
        case "dump_failed":
            return f"dump failed: {details['reason']} ({human_seconds(details['left_s'])} of the window left)"
        case "obstacle":
            fatal = details["severity"] == "fatal"
            return (
                f"{'this task cannot be saved as it is' if fatal else 'a save would lose something'}: "
                f"pid {details['pid']} ({details['comm']}), {details['subject']}: "
                f"{details['message']} - {details['remedy']}"
            )
        case "connection":
            return "connection {local} to {remote}: {outcome}, {reason}".format(**details)
        case "killed":
            return (
                "the task was killed, for want of memory perhaps, or by a scheduler or a person; "
                + _after_kill(details["snapshot"])
            )
        case "end_not_noted":
            return (
                f"the store could not be told that the task has ended: {details['reason']}; remove its snapshots "
                f"before the same command is run again: snaplib prune --key {shlex.quote(event.key)} --keep 0"
            )
        case "not_removed":
            return (
                f"the snapshots of the task could not be removed: {details['reason']}; they are of no use any more: "
                f"snaplib prune --key {shlex.quote(event.key)} --keep 0"
            )
        case "restore_failed":
            return f"snapshot {details['snapshot']} could not be restored: {details['reason']}"
        case _:
            return ""


def _saved_memory(details: dict[str, Any]) -> str:
    memory, final = details["memory_bytes"], details["final_bytes"]
    if final is None:
        return f"{human_bytes(memory)} of memory"
    ahead = human_bytes(max(0, memory - final))
    return f"warm copy {ahead}, final {human_bytes(final)} of {human_bytes(memory)} of memory"


def _after_kill(snapshot: str | None) -> str:
    if snapshot is None:
        return "there is no snapshot of it, and the same command begins anew"
    return f"snapshot {snapshot} is kept: run the same command again to go on from there"


def _promise(details: dict[str, Any]) -> str:
    if details["lost_s"] is None:
        return (
            "no snapshots are made ahead any more: the window is long enough to save the task in it"
        )
    why = (
        "" if details["by"] == "option" else ", for the window is too short to save the task in it"
    )
    seconds = human_seconds(details["lost_s"])
    return f"saved every {seconds}{why}: if this machine goes early, at most {seconds} of work are lost"


def _who(details: dict[str, Any]) -> str:
    return f"{details['source']}: {details['detail']}" if details["detail"] else details["source"]
