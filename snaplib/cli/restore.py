"""``snaplib restore``: bring a snapshot to life."""

from __future__ import annotations

import argparse
import os
import subprocess
import time

from snaplib.checkpoint import CHANGED_FILES, restore
from snaplib.cli.eventlog import EventLog
from snaplib.cli.options import add_store
from snaplib.cli.output import emit_json, human_seconds, message
from snaplib.cli.run import add_supervision, choose_saver, obey_signals
from snaplib.errors import NoSuchSnapshot, RootRequired, UsageError
from snaplib.event import Event
from snaplib.kernel.footprint import share_malloc_arena
from snaplib.reclaim import choose_sources
from snaplib.scratch import sweep_scratch
from snaplib.store import Snapshot, Store
from snaplib.supervise import Supervisor

__all__ = ["configure", "run"]

#: What only those can heed that look after the task.
_ATTENDED = ("reclaim", "snapshot_every", "window")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.usage = "snaplib restore [ID] [OPTIONS]"
    parser.add_argument(
        "snapshot",
        nargs="?",
        metavar="ID",
        help="the snapshot, or the beginning of its id (default: the newest of the key)",
    )
    add_store(parser)
    parser.add_argument(
        "--key", help="whose newest snapshot to take (default: the store's only one)"
    )
    parser.add_argument(
        "--detach",
        action="store_true",
        help="print the pid of the task and leave it to itself; its output goes where ours does",
    )
    parser.add_argument(
        "--json", action="store_true", help="with --detach: print one JSON object on stdout"
    )
    parser.add_argument(
        "--lazy",
        action="store_true",
        help="let the task run before its memory is there: what it touches comes first, the rest while it runs",
    )
    parser.add_argument(
        "--changed-files",
        choices=CHANGED_FILES,
        default="refuse",
        help="what becomes of a file that went with the snapshot and has changed since, other than by growing "
        "(default: refuse)",
    )
    add_supervision(parser)


def run(args: argparse.Namespace) -> int:
    """Restore, and unless detached look after the task as ``snaplib run`` does."""
    _check(args)
    if os.geteuid() != 0:
        raise RootRequired("restoring a task needs root")
    sweep_scratch()
    store = Store.open(args.store, create=False)
    snapshot = _choose(store, args.snapshot, args.key)
    if args.detach:
        with EventLog(args.events, quiet=True) as log:
            return _detached(store, snapshot, log, args=args)
    share_malloc_arena()
    with EventLog(args.events, quiet=args.quiet) as log:
        supervisor = Supervisor(
            snapshot.task["command"],
            store=store,
            key=snapshot.key,
            snapshot_id=snapshot.id,
            window_s=args.window,
            reclaim=choose_sources(args.reclaim),
            tcp=args.tcp,
            files=args.files,
            capture=args.capture,
            changed_files=args.changed_files,
            exit_saved=args.exit_saved,
            lazy=args.lazy,
            priority=args.priority,
            snapshot_every_s=args.snapshot_every,
            keep_snapshots=True,
            saver=choose_saver(args),
            on_event=log,
        )
        obey_signals(supervisor)
        return supervisor.run()


def _check(args: argparse.Namespace) -> None:
    """Refuse what contradicts itself, before anything is looked at."""
    if args.json and not args.detach:
        raise UsageError("--json tells of a detached restore", hint="add --detach")
    for name in _ATTENDED if args.detach else ():
        if getattr(args, name) is not None:
            option = name.replace("_", "-")
            raise UsageError(
                f"--{option} is of no use with --detach: nobody looks after the task",
                hint="leave one out",
            )


def _choose(store: Store, snapshot_id: str | None, key: str | None) -> Snapshot:
    if snapshot_id:
        snapshot = store.get(snapshot_id)
        if key and snapshot.key != key:
            raise UsageError(
                f"snapshot {snapshot.id} is of key {snapshot.key}, not of {key}",
                hint="leave out the ID or --key",
            )
        return snapshot
    found = store.snapshots(key)
    if not found:
        of_key = f" of key {key}" if key else ""
        raise NoSuchSnapshot(f"{store.url} holds no snapshot{of_key}")
    if len({snapshot.key for snapshot in found}) > 1:
        raise UsageError(
            "the store holds snapshots of several tasks", hint="name one by its id or with --key"
        )
    return found[0]


def _detached(store: Store, snapshot: Snapshot, log: EventLog, *, args: argparse.Namespace) -> int:
    began = time.monotonic()
    task = restore(
        store,
        snapshot.id,
        stdin=subprocess.DEVNULL,
        lazy=args.lazy,
        changed_files=args.changed_files,
        tcp=args.tcp,
        on_connection=lambda fate: message(str(fate)),
    )
    seconds = time.monotonic() - began
    details = {"pid": task.pid, "snapshot": snapshot.id, "restore_s": seconds}
    log(Event("restored", time.time(), snapshot.key, details, "running"))
    if args.json:
        emit_json({"id": snapshot.id, "pid": task.pid, "ns_pid": task.ns_pid, "restore_s": seconds})
    else:
        print(task.pid)
        message(f"restored snapshot {snapshot.id} in {human_seconds(seconds)} as pid {task.pid}")
    return 0
