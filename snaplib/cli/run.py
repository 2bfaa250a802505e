"""``snaplib run``: start a command, or resume it; save it when notice is given."""

from __future__ import annotations

import argparse
import os
import signal

from snaplib.cli.eventlog import EventLog
from snaplib.cli.notices import NOTICES, early_notices
from snaplib.cli.options import above_zero, add_files, add_store, whole, zero_or_more
from snaplib.errors import EXIT_SAVED, RootRequired, UsageError
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

__all__ = ["add_supervision", "choose_saver", "configure", "obey_signals", "run"]

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
