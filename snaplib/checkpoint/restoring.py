"""One restore: a snapshot comes to life in a PID namespace of its own, with the PIDs it had."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from snaplib.arguments import functions, number, one_of, snapshot_store, text
from snaplib.checkpoint.affinity import restore_affinity
from snaplib.checkpoint.connections import TCP_MODES, Fate
from snaplib.checkpoint.deadline import Deadline
from snaplib.checkpoint.filling import CannotFill, fill, pids_inside
from snaplib.checkpoint.hostcheck import check_host, check_loopback
from snaplib.checkpoint.imagefolder import ImageFolder, images_of
from snaplib.checkpoint.lazy import LazyHelper, note_lazy
from snaplib.checkpoint.memoryimages import write_images
from snaplib.checkpoint.netlock import remove_old_locks
from snaplib.checkpoint.restorerun import run_restore, too_late
from snaplib.checkpoint.settling import locked_connections
from snaplib.checkpoint.streams import read_streams
from snaplib.checkpoint.taskfiles import CHANGED_FILES, put_back
from snaplib.checkpoint.written import roll_back
from snaplib.criu import Criu, find_criu
from snaplib.criu.images import fillable_ranges, lazy_ranges
from snaplib.errors import RestoreFailed, RootRequired, SnaplibError, UsageError
from snaplib.scratch import scratch_dir
from snaplib.session import Session
from snaplib.store import PageLogReader, Snapshot, SnapshotReader, Store
from snaplib.task import Task

__all__ = ["restore"]

Progress = Callable[[str, float], None]
Stream = Any


def restore(
    store: Store,
    snapshot_id: str,
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    name: str | None = None,
    interactive: bool = False,
    lazy: bool = False,
    changed_files: str = "refuse",
    outlived: bool = False,
    tcp: str = "auto",
    deadline_s: float = 600.0,
    progress: Progress | None = None,
    on_connection: Callable[[Fate], None] | None = None,
) -> Task:
    """Restore a task from a snapshot.

    Args:
        store: Where the snapshot is.
        snapshot_id: Which one.
        stdin: What the task's standard input is from now on; ours by default.
        stdout: Likewise its standard output.
        stderr: Likewise its standard error.
        name: The name of the session the task gets; made up by default.
        interactive: The caller will enter ``session.raw_terminal()``; until then the terminal, if
            there is one, stands still.
        lazy: Let the task run before its memory is there: it gets the pages it touches first, and the rest while it
            runs.  A process of ours serves it, and ends with the last page; the store must stay within reach.
        changed_files: What becomes of a file that went with the snapshot and has changed since in another way than
            growing: ``refuse`` the restore, or ``overwrite`` the file.
        outlived: The task may have run on after a snapshot that was to end it: as with those that are taken while it
            runs on, what it has appended to its files since is cut off, if the dump has noted them (``stand_in``).
        tcp: What becomes of connected TCP sockets: ``auto`` resets those that cannot live on here, ``established``
            restores them all or fails, ``close`` resets them all.  Those of a snapshot that was taken with ``close``
            are closed in any case.
        deadline_s: Seconds after which the restore is given up; they begin anew with each piece of memory that comes
            while CRIU waits for it.
        progress: Called with a stage and the bytes of pages so far.  If it raises, the restore is given up.
        on_connection: Called with each connection that does not live on as it was.

    Returns:
        The task, running.

    Raises:
        RestoreFailed: It could not be restored; the snapshot is as it was, and nothing is left running.
        SnapshotDamaged: The snapshot's bytes are not those that were written.
        UsageError: An argument is not what it can be.
    """
    snapshot_store(store)
    text("snapshot_id", snapshot_id)
    one_of("tcp", tcp, TCP_MODES)
    one_of("changed_files", changed_files, CHANGED_FILES)
    functions(progress=progress, on_connection=on_connection)
    if name is not None:
        text("name", name)
    if number("deadline_s", deadline_s, finite=True) <= 0:
        raise UsageError(f"a deadline of {deadline_s:g} s leaves no time for a restore")
    if os.geteuid() != 0:
        raise RootRequired("restoring a task needs root")
    criu = find_criu()
    check_loopback()
    snapshot = store.get(snapshot_id)
    check_host(snapshot, criu)
    work = _Restore(
        store=store,
        snapshot=snapshot,
        criu=criu,
        outer=(stdin, stdout, stderr),
        name=name,
        interactive=interactive,
        changed_files=changed_files,
        outlived=outlived,
        tcp=tcp,
        tell_connection=on_connection or (lambda _fate: None),
        deadline_s=deadline_s,
        report=progress or (lambda _stage, _bytes: None),
    )
    with locked_connections(snapshot, tcp):
        task = work.lazily() if lazy else work.eagerly()
    try:
        restore_affinity(task, snapshot)
        remove_old_locks()
        work.report("restored", snapshot.raw_bytes)
    except BaseException:
        # Nobody would know of it, and the next restore would make a second.
        assert task.session is not None
        task.session.discard()
        raise
    return task


@attrs.frozen
class _Restore:
    """One restore."""

    store: Store
    snapshot: Snapshot
    criu: Criu
    outer: tuple[Stream, Stream, Stream]
    name: str | None
    interactive: bool
    changed_files: str
    outlived: bool
    tcp: str
    tell_connection: Callable[[Fate], None]
    deadline_s: float
    report: Progress

    def eagerly(self) -> Task:
        # Before files are cut to what they were, all of the snapshot must be known to be good.
        if not self._to_roll_back():
            with contextlib.suppress(CannotFill):
                return self._eagerly(filled=True)
        return self._eagerly(filled=False)

    def _eagerly(self, *, filled: bool) -> Task:
        self.report("reading", 0)
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(self.store.read(self.snapshot.id))
            put_back(reader, self.changed_files)
            left_out = functools.partial(fillable_ranges, self.criu) if filled else None
            images = stack.enter_context(images_of(reader, left_out))
            self.report("restoring", self.snapshot.raw_bytes)
            session = self._new_session(reader)
            deadline = Deadline(self.deadline_s)
            fill_up = functools.partial(self._fill_up, session, images, reader.pages, deadline)
            return self._run(
                session, images, deadline, fill_up=fill_up if len(images.left) else None
            )

    def _to_roll_back(self) -> Any:
        """Return the files that the task may have written to after the snapshot was taken."""
        if self.outlived or not self.snapshot.extra.get("ends_task", False):
            return self.snapshot.extra.get("written", ())
        return ()

    def lazily(self) -> Task:
        with scratch_dir("restore") as images:
            helper = LazyHelper(self.store, lambda served: self.report("fetching", served))
            try:
                return self._with_helper(helper, images)
            except BaseException as error:
                # Where it has failed, CRIU only saw it go away.
                failure = helper.give_up()
                if failure and isinstance(error, SnaplibError):
                    raise RestoreFailed(failure, hint="the snapshot is as it was") from error
                raise

    def _with_helper(self, helper: LazyHelper, images: Path) -> Task:
        self.report("reading", 0)
        helper.begin(self.snapshot)
        with self.store.read(self.snapshot.id) as reader:
            put_back(reader, self.changed_files)
            left = write_images(reader, images, functools.partial(lazy_ranges, self.criu))
            helper.listen(images, left)
            self.report("restoring", 0)
            session = self._new_session(reader)
        try:
            helper.serves(session.init_pid, note_lazy(session.folder, helper.pid))
        except BaseException:
            session.discard()
            raise
        deadline = Deadline(self.deadline_s)
        task = self._run(
            session,
            ImageFolder(images),
            deadline,
            lazy=True,
            fill_up=lambda: helper.wait_until_ready(deadline.left_s),
        )
        helper.task_runs()
        return task

    def _fill_up(
        self, session: Session, images: ImageFolder, pages: PageLogReader, deadline: Deadline
    ) -> None:
        def done(count: int) -> None:
            if not deadline.left_s:
                raise too_late(self.snapshot, deadline)
            # However much there is, and however slowly it comes.
            deadline.move(self.deadline_s)
            self.report("filling", count)

        fill(pages, images.left, pids_inside(session.init_pid), done=done)

    def _run(
        self,
        session: Session,
        images: ImageFolder,
        deadline: Deadline,
        *,
        lazy: bool = False,
        fill_up: Callable[[], None] | None = None,
    ) -> Task:
        try:
            roll_back(self._to_roll_back())
            run_restore(
                self.criu,
                session,
                self.snapshot,
                images,
                deadline,
                tcp=self.tcp,
                tell=self.tell_connection,
                lazy=lazy,
                fill_up=fill_up,
            )
            session.adopt_root(self.snapshot.task["root_ns_pid"])
        except BaseException:
            session.discard()
            raise
        return Task.of_session(session)

    def _new_session(self, reader: SnapshotReader) -> Session:
        """Make the namespace the task will live in, with the ends of its standard streams."""
        snapshot = reader.snapshot
        record, backlog, captured = read_streams(reader)
        reserve = {
            number
            for member in snapshot.task["members"]
            for number in (member["pid"], member["group"], member["session"], *member["threads"])
        }
        return Session.start_for_restore(
            record,
            command=snapshot.task["command"],
            cwd=snapshot.task["cwd"],
            stdin=self.outer[0],
            stdout=self.outer[1],
            stderr=self.outer[2],
            backlog=backlog,
            captured=captured,
            name=self.name,
            key=snapshot.key,
            reserve=reserve,
            interactive=self.interactive,
        )
