"""Descriptors of kernel objects: rings, events, pidfds, namespaces, epolls, pipes.

What CRIU can dump is in its criu/files.c: eventfd, eventpoll, inotify, fanotify, signalfd, timerfd,
pidfd, pipes, namespaces. Everything else is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from snaplib.checkpoint.preflight.scene import inode_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import Member, Scene
    from snaplib.kernel.descriptors import Descriptor

__all__ = ["check_anonymous", "check_epolls", "check_namespaces", "check_pidfds", "check_watches"]

_ANONYMOUS = "anon_inode:"

#: Names of anonymous inodes that CRIU dumps; pidfds have a rule of their own.
_DUMPABLE = frozenset(
    {"eventfd", "eventpoll", "inotify", "fanotify", "signalfd", "timerfd", "pidfd"}
)

#: Name of the anonymous inode -> code, what it is, remedy.
_REFUSED = {
    "io_uring": (
        "io-uring-descriptor",
        "an io_uring ring",
        "have the program use epoll or threads instead (libuv: UV_USE_IO_URING=0)",
    ),
    "userfaultfd": (
        "userfaultfd",
        "a userfaultfd",
        "have the program handle its page faults otherwise, or close it before the dump",
    ),
    "perf_event": ("perf-event", "a performance counter", "run the task without profiling"),
    "bpf-map": ("bpf-map", "an eBPF map", "keep eBPF in a process outside the task"),
    "bpf-prog": ("bpf-program", "an eBPF program", "keep eBPF in a process outside the task"),
    "bpf_link": ("bpf-link", "an eBPF link", "keep eBPF in a process outside the task"),
    "seccomp notify": (
        "seccomp-notify",
        "a seccomp listener",
        "let a process outside the task supervise its system calls",
    ),
    "landlock-ruleset": (
        "landlock-ruleset",
        "a Landlock ruleset",
        "close it once it is enforced; it is not needed any longer",
    ),
}


def check_anonymous(member: Member, _scene: Scene) -> Iterator[Obstacle]:
    """Find kernel objects that CRIU does not know."""
    for descriptor in member.descriptors:
        if not descriptor.target.startswith(_ANONYMOUS):
            continue
        name = descriptor.target.removeprefix(_ANONYMOUS).strip("[]")
        if name in _DUMPABLE:
            continue
        code, what, remedy = _REFUSED.get(
            name,
            (
                "unknown-descriptor",
                f"a kernel object ({descriptor.target})",
                "close it before the dump",
            ),
        )
        yield _fatal(member, descriptor, code, f"{what}, which CRIU cannot dump", remedy)


def check_pidfds(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find pidfds of threads and of processes outside the task."""
    for descriptor in member.descriptors:
        if "Pid" not in descriptor.extra or "pidfd" not in descriptor.target:
            continue
        pid = int(descriptor.extra["Pid"][0])
        # PIDFD_THREAD is the same bit (linux/pidfd.h).
        if descriptor.flags & os.O_EXCL:
            yield _fatal(
                member,
                descriptor,
                "pidfd-thread",
                f"a pidfd of the thread {pid}; CRIU knows only those of processes",
                "close it before the dump",
            )
        # -1 stands for a process that has ended; CRIU makes another that ends.
        elif pid != -1 and pid not in scene.members:
            yield _fatal(
                member,
                descriptor,
                "pidfd-outside",
                f"a pidfd of {scene.name_of(pid)}, which is not part of the task",
                "close it before the dump, or start that process from within the task",
            )


def check_namespaces(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find descriptors of namespaces in which no member is."""
    known = {inode for one in scene.members.values() for inode in one.namespaces.values()}
    known.update(scene.dumper_namespaces.values())
    for descriptor in member.descriptors:
        kind = descriptor.target.partition(":")[0]
        if kind not in member.namespaces:
            continue
        inode = inode_in(descriptor.target, kind)
        if inode is not None and inode not in known:
            yield _fatal(
                member,
                descriptor,
                "namespace-outside",
                f"the {kind} namespace {inode}, in which no process of the task is",
                "close it before the dump",
            )


def check_epolls(member: Member, _scene: Scene) -> Iterator[Obstacle]:
    """Find epolls that watch something this process has closed and others keep open."""
    for descriptor in member.descriptors:
        for watched in member.escaped.get(descriptor.fd, ()):
            yield _fatal(
                member,
                descriptor,
                "epoll-escaped",
                f"an epoll that watches fd {watched}, which is closed here and open elsewhere",
                "take it out of the epoll (EPOLL_CTL_DEL) before closing it",
            )


def check_watches(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find inotify and fanotify watches on file systems that the task cannot reach."""
    if not scene.mounts:
        return
    reachable = {one.dev for one in scene.mounts.values()}
    for descriptor in member.descriptors:
        for key in ("inotify", "fanotify"):
            for line in descriptor.extra.get(key, ()):
                number = _hexadecimal(line, "sdev:")
                if number is None:
                    continue
                # The kernel's own form of a device number: 12 bits major, 20 bits minor.
                if os.makedev(number >> 20, number & 0xFFFFF) not in reachable:
                    yield _fatal(
                        member,
                        descriptor,
                        "watch-unreachable",
                        f"an {key} watch on a file system (device {number:#x}) not mounted here",
                        "remove the watch before the dump",
                    )


def _hexadecimal(line: str, label: str) -> int | None:
    for word in line.replace(label + " ", label).split():
        if word.startswith(label) and len(word) > len(label):
            return int(word.removeprefix(label), 16)
    return None


def _fatal(
    member: Member, descriptor: Descriptor, code: str, message: str, remedy: str
) -> Obstacle:
    return member.obstacle("fatal", code, f"fd {descriptor.fd}", message, remedy)
