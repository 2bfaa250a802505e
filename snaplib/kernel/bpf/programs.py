"""Program sets in the kernel: loaded, attached, and gone when closed.

Nothing is pinned. What a process has attached goes with its descriptors, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os

import attrs
import numpy as np

from snaplib.kernel.bpf import abi
from snaplib.kernel.bpf.bytecode import Bytecode, CompiledProgram
from snaplib.kernel.bpf.cache import BpfUnavailable, BytecodeCache
from snaplib.kernel.bpf.maps import BpfMap

__all__ = ["Programs"]


@attrs.frozen
class _Loaded:
    descriptor: int
    attachment: int | None


class Programs:
    """The programs of some sets and the maps they share.

    Args:
        cache: Where bytecode comes from.
    """

    def __init__(self, cache: BytecodeCache) -> None:
        self._cache = cache
        self.maps: dict[str, BpfMap] = {}
        self._loaded: dict[str, _Loaded] = {}
        self._raw_tracepoints: list[int] = []
        self._buffer = bytearray()

    def load(self, *names: str) -> dict[str, str]:
        """Load sets: attach raw tracepoints by the names of their programs, make iterators ready.

        A program whose tracepoint this kernel does not have is left out.

        Args:
            names: Of the sets.

        Returns:
            Programs that are left out, and why.

        Raises:
            BpfUnavailable: They cannot be compiled or loaded here.
        """
        _check_permitted()
        sets = self._cache.get(names)
        left_out: dict[str, str] = {}
        for name in names:
            try:
                self._make_maps(sets[name])
                for program in sets[name].programs:
                    if (why := self._load(program)) is not None:
                        left_out[program.name] = why
            except OSError as error:
                raise BpfUnavailable(f"eBPF programs of {name}.c do not load: {error}") from error
        return left_out

    def iterate(self, name: str, dtype: np.dtype[np.void], *, pid: int = 0) -> np.ndarray:
        """Run an iterator and return the records it wrote, shape (n,); see `abi.run_iterator`."""
        size = abi.run_iterator(self._loaded[name].descriptor, self._buffer, pid=pid)
        return np.frombuffer(self._buffer, dtype, size // dtype.itemsize).copy()

    def misses(self) -> int:
        """Return how often programs at tracepoints were passed over because they were running already."""
        return sum(abi.program_misses(one) for one in self._raw_tracepoints)

    def close(self) -> None:
        """Detach all programs; they and their maps are gone then."""
        for loaded in self._loaded.values():
            if loaded.attachment is not None:
                os.close(loaded.attachment)
            os.close(loaded.descriptor)
        self._loaded.clear()
        self._raw_tracepoints.clear()
        for one in self.maps.values():
            one.close()
        self.maps.clear()

    def _make_maps(self, bytecode: Bytecode) -> None:
        for definition in bytecode.maps:
            there = self.maps.get(definition.name)
            if there is None:
                self.maps[definition.name] = BpfMap(definition)
            elif there.definition != definition:
                raise BpfUnavailable(f"two program sets differ about the map {definition.name}")

    def _load(self, program: CompiledProgram) -> str | None:
        descriptors = {name: one.descriptor for name, one in self.maps.items()}
        iterator = program.attach_btf_id != 0
        descriptor = abi.program_load(
            abi.PROGRAM_TRACING if iterator else abi.PROGRAM_RAW_TRACEPOINT,
            program.linked(descriptors),
            program.name,
            attach_btf_id=program.attach_btf_id,
        )
        if iterator:
            self._loaded[program.name] = _Loaded(descriptor, None)
            return None
        attachment = None
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, descriptor)
            try:
                attachment = abi.raw_tracepoint_open(descriptor, program.name)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                return "this kernel has no such tracepoint"
            undo.pop_all()
        self._loaded[program.name] = _Loaded(descriptor, attachment)
        self._raw_tracepoints.append(descriptor)
        return None


def _check_permitted() -> None:
    """Find out before anything is compiled whether this process may use eBPF."""
    try:
        os.close(abi.map_create(abi.MAP_HASH, 4, 8, 1, flags=0, name="trial"))
    except OSError as error:
        if error.errno == errno.EPERM:
            raise BpfUnavailable(
                "this process may not use eBPF: it needs CAP_BPF and CAP_PERFMON, or root outside of"
                " containers",
            ) from None
        raise BpfUnavailable(f"eBPF does not work here: {error.strerror}") from None
