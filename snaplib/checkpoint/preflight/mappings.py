"""Memory mappings: kernel objects that are mapped, System V shared memory, sealed memory.

What CRIU dumps is in its criu/proc_parse.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import Member, Scene
    from snaplib.kernel.maps import Mapping

__all__ = ["check_kernel_memory", "check_lost_flags", "check_sysv_shared_memory"]

_HIDDEN_MEMORY = "/secretmem"
_PROBES = "[uprobes]"
_VVAR = frozenset({"[vvar]", "[vvar_vclock]"})

#: VmFlags of memory that belongs to a device: VM_IO and VM_PFNMAP.
_DEVICE_FLAGS = frozenset({"io", "pf"})


def check_kernel_memory(member: Member, _scene: Scene) -> Iterator[Obstacle]:
    """Find mapped kernel objects and device memory that CRIU cannot dump."""
    for one in member.mappings:
        if one.path.startswith("anon_inode:"):
            ring = "io_uring" in one.path
            yield _fatal(
                member,
                one,
                "io-uring-mapping" if ring else "kernel-mapping",
                f"memory shared with the kernel ({one.path}), which CRIU cannot dump",
                "have the program use epoll or threads instead (libuv: UV_USE_IO_URING=0)"
                if ring
                else "unmap it before the dump",
            )
        elif one.path.startswith(_HIDDEN_MEMORY):
            yield _fatal(
                member,
                one,
                "secret-memory",
                "secret memory (memfd_secret), which nobody but the program can read",
                "have the program use ordinary memory",
            )
        elif one.path == _PROBES:
            yield _fatal(
                member,
                one,
                "uprobes",
                "code of a user-space probe (uprobe)",
                "remove the probe (perf, bpftrace) and start the program anew",
            )
        # Shared mappings of a device go unnoticed by CRIU's test; its descriptor does not.
        elif (
            one.vm_flags is not None
            and one.vm_flags & _DEVICE_FLAGS
            and not one.shared
            and one.path not in _VVAR
        ):
            yield _fatal(
                member,
                one,
                "device-memory",
                f"memory of a device ({one.path or 'no name'}), which CRIU cannot dump",
                "unmap it before the dump",
            )


def check_sysv_shared_memory(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find System V shared memory, which CRIU dumps with an IPC namespace only."""
    if scene.root_member.namespaces.get("ipc") != scene.dumper_namespaces.get("ipc"):
        return
    for one in member.mappings:
        if one.path.startswith("/SYSV"):
            yield _fatal(
                member,
                one,
                "sysv-shared-memory",
                f"System V shared memory {one.inode} ({one.path.removesuffix(' (deleted)')}) of"
                " the host's IPC namespace",
                "launch the task with `unshare --ipc`, or use POSIX shared memory",
            )


def check_lost_flags(member: Member, _scene: Scene) -> Iterator[Obstacle]:
    """Find memory whose kind is not restored. Needs VmFlags, which only smaps has."""
    for one in member.mappings:
        flags = one.vm_flags or frozenset()
        if "sl" in flags and not one.path.startswith("[v"):
            yield _lost(
                member,
                one,
                "sealed-memory",
                f"sealed memory (mseal){_of(one)} is not sealed after a restore",
                "none is needed if the program does not rely on it against attackers",
            )
        if "dp" in flags:
            yield _lost(
                member,
                one,
                "droppable-memory",
                "droppable memory (MAP_DROPPABLE) is empty after a restore",
                "none is needed: the program has to expect that at any time",
            )


def _of(one: Mapping) -> str:
    return f" of {one.path}" if one.path else ""


def _subject(one: Mapping) -> str:
    return f"mapping {one.start:x}-{one.end:x}"


def _fatal(member: Member, one: Mapping, code: str, message: str, remedy: str) -> Obstacle:
    return member.obstacle("fatal", code, _subject(one), message, remedy)


def _lost(member: Member, one: Mapping, code: str, message: str, remedy: str) -> Obstacle:
    return member.obstacle("lost", code, _subject(one), message, remedy)
