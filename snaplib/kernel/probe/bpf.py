"""Trials of eBPF: loading a program, attaching it, and what a compiler of programs needs."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import struct
from pathlib import Path

from snaplib.kernel.probe.trial import Failed, Trial
from snaplib.kernel.syscalls import syscall

__all__ = ["TRIALS"]

# linux/bpf.h
_BPF_PROG_LOAD = 5
_BPF_RAW_TRACEPOINT_OPEN = 17
_BPF_PROG_TYPE_RAW_TRACEPOINT = 17
#: Two instructions: r0 = 0; exit.
_RETURN_0 = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)

_BTF = Path("/sys/kernel/btf/vmlinux")
_BTF_MAGIC = 0xEB9F

#: Where Debian's python3-bpfcc lies, which a virtual environment does not look into.
_DEBIAN_PACKAGES = Path("/usr/lib/python3/dist-packages")


def _load() -> int:
    program = ctypes.create_string_buffer(_RETURN_0, len(_RETURN_0))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16s",
        _BPF_PROG_TYPE_RAW_TRACEPOINT,
        len(_RETURN_0) // 8,
        ctypes.addressof(program),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        b"snaplib_probe",
    )
    return _bpf(_BPF_PROG_LOAD, attributes)


def _program() -> str:
    os.close(_load())
    return "a program of two instructions loads"


def _raw_tracepoint() -> str:
    name = ctypes.create_string_buffer(b"sched_process_exit")
    attributes = struct.pack("=QII", ctypes.addressof(name), _load(), 0)
    os.close(_bpf(_BPF_RAW_TRACEPOINT_OPEN, attributes))
    return "attached to sched_process_exit"


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return syscall("bpf", command, buffer, len(attributes))


def _btf() -> str:
    with _BTF.open("rb") as file:
        (magic,) = struct.unpack("<H", file.read(2))
    if magic != _BTF_MAGIC:
        raise Failed(f"{_BTF} is no BTF of this byte order")
    return f"{_BTF}, {_BTF.stat().st_size / 1e6:.1f} MB"


def _tracefs() -> str:
    for folder in (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")):
        if (folder / "events/exceptions").is_dir():
            return str(folder)
    raise Failed("not mounted, or not readable")


def _bpffs() -> str:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split(" ")
        if kind == "bpf":
            return target
    raise Failed("not mounted")


def _bcc() -> str:
    # Found, not imported: importing it brings LLVM in, 66 MB of it.
    if importlib.util.find_spec("bcc") is None and not (_DEBIAN_PACKAGES / "bcc").is_dir():
        raise Failed("the Python module bcc is not installed")
    return _library("libbcc.so.0")


def _library(name: str) -> str:
    places = [Path("/usr/lib"), Path("/lib"), Path("/usr/lib64"), Path("/usr/local/lib")]
    places[:0] = [place / f"{platform.machine()}-linux-gnu" for place in places]
    for place in places:
        if (place / name).exists():
            return str(place / name)
    raise Failed(f"{name} is not installed")


_PRIVILEGE = "run it as root, or give it CAP_BPF and CAP_PERFMON"

TRIALS = (
    Trial("bpf_program", _program, _PRIVILEGE),
    Trial("bpf_raw_tracepoint", _raw_tracepoint, _PRIVILEGE),
    Trial("btf", _btf, "use a kernel with CONFIG_DEBUG_INFO_BTF"),
    Trial("tracefs", _tracefs, "mount -t tracefs tracefs /sys/kernel/tracing"),
    Trial("bpffs", _bpffs, "mount -t bpf bpf /sys/fs/bpf"),
    Trial("bcc", _bcc, "apt-get install python3-bpfcc"),
)
