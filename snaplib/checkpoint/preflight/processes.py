"""Processes: tracers, stuck and half-ended ones, sessions, locks, and those that are not found."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import Member, Scene

__all__ = [
    "check_ended_leader",
    "check_limits",
    "check_locks",
    "check_message_queues",
    "check_sessions",
    "check_strangers",
    "check_stuck",
    "check_tracer",
]
__all__ += ["check_strangers", "check_stuck", "check_tracer"]

#: clone, vfork and clone3 on x86-64; clone and clone3 elsewhere.
_CLONES = frozenset({56, 58, 220, 435})
#: CAP_SYS_RESOURCE of linux/capability.h.
_SYS_RESOURCE = 1 << 24


def check_tracer(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find processes under a debugger: only one process can trace, and CRIU has to."""
    for tid, tracer in member.tracers.items():
        yield member.obstacle(
            "fatal",
            "traced",
            "process" if tid == member.pid else f"thread {tid}",
            f"traced by {scene.name_of(tracer)}: CRIU cannot seize it",
            "detach the debugger",
        )
        # A debugger traces all threads; one line says it.
        return


def check_ended_leader(member: Member, _scene: Scene) -> Iterator[Obstacle]:
    """Find processes whose main thread has ended while others run on."""
    if member.stat.zombie and len(member.threads) > 1:
        yield member.obstacle(
            "fatal",
            "main-thread-ended",
            "process",
            f"its main thread has ended, {len(member.threads) - 1} other(s) run on: CRIU refuses"
            " such processes",
            "have the main thread wait for the others (pthread_join) instead of pthread_exit",
        )


def check_limits(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find processes of other users where we may not ask for their limits (Linux: check_prlimit_permission)."""
    dumper, one = scene.dumper_status, member.status
    if dumper is None or dumper.effective_capabilities & _SYS_RESOURCE or member.stat.zombie:
        return
    # The file system ids, which are the last ones, do not count.
    if {dumper.uids[0]} == set(one.uids[:3]) and {dumper.gids[0]} == set(one.gids[:3]):
        return
    yield member.obstacle(
        "fatal",
        "limits-hidden",
        "process",
        f"it runs as user {one.uids[1]} and group {one.gids[1]}, and without the capability SYS_RESOURCE CRIU may not"
        " ask for its limits",
        "give snaplib's container the capability SYS_RESOURCE, or run the task as the user and group of snaplib",
    )


def check_stuck(member: Member, _scene: Scene) -> Iterator[Obstacle]:
    """Find processes in an uninterruptible wait, which cannot be stopped."""
    if member.stuck_in is None:
        return
    if member.stuck_in in _CLONES:
        yield member.obstacle(
            "fatal",
            "vfork-parent",
            "process",
            "it waits in vfork for its child to call exec or to end: it cannot be stopped so long",
            "wait for that and dump again",
        )
    else:
        yield member.obstacle(
            "warning",
            "uninterruptible",
            "process",
            "it waits for a device or a file server (state D) and cannot be stopped so long",
            "see that the disk or the server answers",
        )


def check_sessions(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find processes whose session or process group is led from outside the task."""
    session = member.status.ns_sessions[-1] if member.status.ns_sessions else member.stat.session
    if session == 0:
        yield member.obstacle(
            "fatal",
            "session-outside-namespace",
            "process",
            "the leader of its session is outside its PID namespace",
            "start it with setsid(1)",
        )
        return
    root = scene.root_member
    if member is root:
        if member.stat.session != member.pid and not scene.launched:
            yield member.obstacle(
                "warning",
                "session-outside",
                "process",
                f"its session is that of {scene.name_of(member.stat.session)}, outside the task:"
                " after a restore no shell controls it as its job",
                "start it with setsid(1) or `snaplib run`",
            )
        return
    if session == member.ns_pid:
        return
    if member.stat.ppid == root.pid:
        if member.stat.session not in scene.members and member.stat.session != root.stat.session:
            yield member.obstacle(
                "lost",
                "session-leader-ended",
                "process",
                f"the leader of its session {session} has ended: restored, it is no child of the"
                " task's root any more, and not saved again",
                "have it call setsid last, as daemon(3) does",
            )
        return
    ancestor = scene.members.get(member.stat.ppid)
    if ancestor is None or ancestor.stat.session == member.stat.session:
        return
    while ancestor is not None:
        if ancestor.pid == member.stat.session:
            return
        ancestor = scene.members.get(ancestor.stat.ppid)
    yield member.obstacle(
        "fatal",
        "session-leader-lost",
        "process",
        f"the leader of its session {session} is none of its ancestors: a restore cannot put it"
        " into that session",
        "start the root of the task with setsid(1)",
    )


def check_locks(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find file locks that were taken by a process outside the task."""
    for descriptor in member.descriptors:
        for line in descriptor.extra.get("lock", ()):
            # "1: FLOCK  ADVISORY  WRITE 1234 fe:00:2203915 0 EOF" (proc_locks(5))
            words = line.split()
            if len(words) < 5 or words[1] != "FLOCK" or not words[4].isdigit():
                continue
            owner = int(words[4])
            if words[3] == "WRITE" and owner in scene.names and owner not in scene.members:
                yield member.obstacle(
                    "warning",
                    "lock-outside",
                    f"fd {descriptor.fd}",
                    f"the lock on {descriptor.target} is shared with {scene.name_of(owner)},"
                    " outside the task: a restore on this host waits until that has released it",
                    "take the lock within the task, or end that process before the restore",
                )


def check_strangers(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find processes that belong to the task and would not be dumped with it."""
    if member is not scene.root_member:
        return
    for stranger in scene.strangers:
        who = f"pid {stranger.pid} ({stranger.comm})"
        if stranger.in_namespace:
            yield member.obstacle(
                "fatal",
                "orphan",
                "process",
                f"{who} has left its parents and is not dumped with the task, whose PID namespace"
                " it is in",
                "start the task with --adopt-orphans, or have the program not put itself into the background",
            )
        else:
            yield member.obstacle(
                "lost",
                "orphan",
                "process",
                f"{who} shares a session with the task and is not its descendant: it is not dumped",
                "launch the task with `snaplib run`, or stop that process",
            )


def check_message_queues(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find System V message queues that the process has used."""
    for number, pid in scene.message_queues:
        if pid == member.pid:
            yield member.obstacle(
                "lost",
                "sysv-message-queue",
                "process",
                f"the System V message queue {number} of the host's IPC namespace is not kept",
                "launch the task with `unshare --ipc`, or use a pipe or a socket",
            )
