"""What this host can do: found by trying, never by asking for a version.

`Host.probe` takes about a third of a second and leaves no trace. Whether a task can be dumped and
restored in full is told only by doing it, which `snaplib doctor` does on top of this.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from snaplib.criu import Criu, find_criu
from snaplib.errors import HostUnfit, SnaplibError, UsageError
from snaplib.kernel.probe import Feature, probe_kernel
from snaplib.kernel.procfs import ProcFs
from snaplib.runtime import runtime_dir
from snaplib.scratch import scratch_base

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Feature", "Host"]

#: Names of the bits of linux/capability.h, from 0 up.
_CAPABILITIES = (
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
)


@attrs.frozen
class Host:
    """What a host is and can do.

    Attributes:
        kernel: Release of the kernel, to be shown; nothing is decided by it.
        arch: Machine, such as ``x86_64``.
        cpus: CPUs that this process may use.
        memory_bytes: Memory of the machine.
        root: Whether this process runs as root.
        capabilities: Effective capabilities of this process, such as ``sys_admin``.
        criu: The CRIU that will be used; None when none is fit.
        bpf: ``full`` when programs can be compiled and loaded here, ``cached`` when only such as
            have been compiled before, ``none`` when none can be loaded.
        tracking: How dirty pages are found: ``write-protect``, ``soft-dirty`` or ``none``.
        features: Name -> outcome of each trial.
    """

    kernel: str
    arch: str
    cpus: int
    memory_bytes: int
    root: bool
    capabilities: frozenset[str]
    criu: Criu | None
    bpf: Literal["full", "cached", "none"]
    tracking: Literal["write-protect", "soft-dirty", "none"]
    features: Mapping[str, Feature]

    @classmethod
    def probe(cls, *, procfs: ProcFs | None = None) -> Host:
        """Try everything and return what was found.

        Args:
            procfs: Where this process is looked up.
        """
        status = (procfs if procfs is not None else ProcFs()).status(os.getpid())
        system = os.uname()
        criu, criu_feature = _criu()
        features = {
            "root": _root(),
            "criu": criu_feature,
            **probe_kernel(),
            "runtime_folder": _runtime_folder(),
            "scratch_folder": _scratch_folder(),
            "zstd": _zstd(),
        }

        def works(*names: str) -> bool:
            return all(name in features and features[name].ok for name in names)

        loads = works("bpf_program", "bpf_raw_tracepoint", "btf")
        return cls(
            kernel=system.release,
            arch=system.machine,
            cpus=len(os.sched_getaffinity(0)),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            root=os.geteuid() == 0,
            capabilities=frozenset(
                name
                for bit, name in enumerate(_CAPABILITIES)
                if status.effective_capabilities >> bit & 1
            ),
            criu=criu,
            bpf="full" if loads and works("bcc") else "cached" if loads else "none",
            tracking=(
                "write-protect"
                if works("write_protect")
                else "soft-dirty"
                if works("soft_dirty")
                else "none"
            ),
            features=features,
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the features without which no task can be dumped and restored."""
        return tuple(
            name for name, feature in self.features.items() if feature.needed and not feature.ok
        )

    def require(self, *names: str) -> None:
        """Check that features work.

        Args:
            names: Of features; all that are needed when none is named.

        Raises:
            HostUnfit: One does not; the first is told.
            UsageError: There is no feature of this name.
        """
        for name in names or self.missing:
            feature = self.features.get(name)
            if feature is None:
                raise UsageError(
                    f"{name!r} is no feature of a host", hint=f"known: {', '.join(self.features)}"
                )
            if not feature.ok:
                raise HostUnfit(
                    f"this host lacks {name.replace('_', ' ')}: {feature.detail}",
                    hint=feature.remedy or None,
                )


def _root() -> Feature:
    uid = os.geteuid()
    if uid == 0:
        return Feature(True, "uid 0", needed=True)
    return Feature(False, f"uid {uid}", "run it as root", needed=True)


def _criu() -> tuple[Criu | None, Feature]:
    try:
        found = find_criu()
    except SnaplibError as error:
        return None, Feature(False, error.message, error.hint, needed=True)
    return found, Feature(True, f"{found.version_text}, {found.path}", needed=True)


def _runtime_folder() -> Feature:
    remedy = "name a folder of yours in $SNAPLIB_RUNTIME_DIR"
    try:
        return _folder(runtime_dir(), remedy)
    except (SnaplibError, OSError) as error:
        return Feature(False, str(error), remedy, needed=True)


def _scratch_folder() -> Feature:
    return _folder(scratch_base(), "name a folder with space in $SNAPLIB_SCRATCH_DIR")


def _folder(path: Path, remedy: str) -> Feature:
    if not os.access(path, os.W_OK | os.X_OK):
        return Feature(False, f"{path} is not there, or not writable", remedy, needed=True)
    free_gib = shutil.disk_usage(path).free / 2**30
    return Feature(True, f"{path}, {free_gib:.1f} GiB free", needed=True)


def _zstd() -> Feature:
    names = ["compression.zstd"] if sys.version_info >= (3, 14) else ["backports.zstd"]
    for name in names:
        try:
            if importlib.util.find_spec(name) is not None:
                return Feature(True, name, needed=True)
        except ModuleNotFoundError:
            continue
    return Feature(False, "no zstd for Python", "pip install backports.zstd", needed=True)
