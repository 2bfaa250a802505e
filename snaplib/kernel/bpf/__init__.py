"""eBPF: the programs in `bpf/` compiled, cached, loaded and read.

A program set is compiled by bcc once for a kernel, in a child process, and kept; loading it later takes
neither bcc nor LLVM. See `docs/observe.md` for what each part costs.
"""

from __future__ import annotations

from snaplib.kernel.bpf.btf import Btf
from snaplib.kernel.bpf.bytecode import Bytecode
from snaplib.kernel.bpf.cache import BpfUnavailable, BytecodeCache
from snaplib.kernel.bpf.maps import BpfMap
from snaplib.kernel.bpf.observer import ObservedLosses, TreeObserver
from snaplib.kernel.bpf.openfiles import OpenFiles, OpenFilesParser
from snaplib.kernel.bpf.programs import Programs
from snaplib.kernel.bpf.ring import RingBuffer

__all__ = [
    "BpfMap",
    "BpfUnavailable",
    "Btf",
    "Bytecode",
    "BytecodeCache",
    "ObservedLosses",
    "OpenFiles",
    "OpenFilesParser",
    "Programs",
    "RingBuffer",
    "TreeObserver",
]
