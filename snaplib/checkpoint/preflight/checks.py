"""What would make a dump or a restore of a task fail, found before it is tried.

`preflight` looks at the task from outside, through /proc and sock_diag(7): it stops nothing and
opens nothing of the task's. The task runs on meanwhile, so the answer holds for the instant at
which it was given.

For tasks above 2 GB the properties that only `smaps` tells (sealed and droppable memory, memory of
devices) are not looked at: the kernel would walk all their pages. Some things nobody can see from
outside: Landlock domains, keys in keyrings, PR_SET_PDEATHSIG. They are lost in a restore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from snaplib.arguments import one_of, task_of
from snaplib.checkpoint.connections import TCP_MODES
from snaplib.checkpoint.preflight import (
    connections,
    descriptors,
    files,
    mappings,
    namespaces,
    pipes,
    processes,
    sockets,
    terminals,
)
from snaplib.checkpoint.preflight.collect import collect
from snaplib.kernel.procfs import ProcFs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import Member, Scene
    from snaplib.session import Session

    Rule = Callable[[Member, Scene], Iterator[Obstacle]]

__all__ = ["RULES", "find_obstacles", "preflight"]

#: Each looks at one member; a new one belongs here and in the tests against CRIU itself.
RULES: tuple[Rule, ...] = (
    connections.check_tcp,
    descriptors.check_anonymous,
    descriptors.check_epolls,
    descriptors.check_namespaces,
    descriptors.check_pidfds,
    descriptors.check_watches,
    files.check_deleted,
    files.check_devices,
    files.check_paths,
    files.check_proc_files,
    mappings.check_kernel_memory,
    mappings.check_lost_flags,
    mappings.check_sysv_shared_memory,
    namespaces.check_nested_namespaces,
    namespaces.check_root_namespaces,
    pipes.check_outside_ends,
    pipes.check_packet_mode,
    processes.check_ended_leader,
    processes.check_limits,
    processes.check_locks,
    processes.check_message_queues,
    processes.check_sessions,
    processes.check_strangers,
    processes.check_stuck,
    processes.check_tracer,
    sockets.check_kinds,
    sockets.check_netlink,
    sockets.check_udp,
    sockets.check_unix,
    terminals.check_controlling_terminal,
    terminals.check_lone_slaves,
)


class _Task(Protocol):
    """What is needed of a task."""

    @property
    def pid(self) -> int: ...

    @property
    def session(self) -> Session | None: ...


def preflight(
    task: _Task,
    *,
    tcp: str = "auto",
    ghost_limit_bytes: int = 1 << 30,
    streams: Collection[str] | None = None,
    procfs: ProcFs | None = None,
) -> list[Obstacle]:
    """Return what would make a dump or a restore of a task fail, the worst first.

    Args:
        task: The task.
        tcp: What is to become of connections: ``auto``, ``established`` or ``close``.
        ghost_limit_bytes: How large a deleted file may be that goes into the snapshot.
        streams: What leads to the task's owner, as CRIU names it: ``pipe:[7]``,
            ``tty[8800:1a]``; by default the streams of the task's session.
        procfs: Where processes are seen.

    Raises:
        TaskEnded: The task has ended.
        RootRequired: It is not ours to look at.
        UsageError: An argument is not what it can be.
    """
    task_of(task)
    one_of("tcp", tcp, TCP_MODES)
    session = task.session
    if streams is None:
        known = session.streams().streams if session is not None else ()
        streams = [one.key for one in known if one.key is not None]
    scene = collect(
        task.pid,
        procfs=procfs or ProcFs(),
        launched=session is not None,
        streams=streams,
        tcp=tcp,
        ghost_limit_bytes=ghost_limit_bytes,
    )
    return find_obstacles(scene)


def find_obstacles(scene: Scene) -> list[Obstacle]:
    """Return what the rules find, the worst first."""
    found = {
        one for member in scene.members.values() for rule in RULES for one in rule(member, scene)
    }
    return sorted(found, key=lambda one: one.sort_key)
