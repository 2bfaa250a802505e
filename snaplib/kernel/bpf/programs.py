"""Program sets in the kernel: loaded, attached, and gone when closed.

Nothing is pinned. What a process has attached goes with its descriptors, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

import attrs
import numpy as np

from snaplib.kernel.bpf import abi
from snaplib.kernel.bpf.bytecode import Bytecode, CompiledProgram
from snaplib.kernel.bpf.cache import BpfUnavailable, BytecodeCache
from snaplib.kernel.bpf.maps import BpfMap

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Programs"]

#: An iterator gives no more than eight pages at a time.
_READ_BYTES = 1 << 15


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
        self._buffer = np.empty(0, np.uint8)

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

    def iterate(
        self, name: str, dtype: np.dtype[np.void], *, pids: Iterable[int] = (0,)
    ) -> np.ndarray:
        """Run an iterator and return the records it wrote, shape (n,).

        They are in memory that the next run writes over: pages that the kernel has to find first cost more
        than the iterator itself.

        Args:
            name: Of its program.
            dtype: Of a record.
            pids: Run it once for each of these processes, in our PID namespace; 0 stands for all.

        Raises:
            OSError: EINVAL or E2BIG where a kernel does not iterate over one process.
        """
        used = 0
        for pid in pids:
            source = abi.open_iterator(self._loaded[name].descriptor, pid=pid)
            try:
                used = self._read_to_end(source, used)
            finally:
                os.close(source)
        return self._buffer[: used - used % dtype.itemsize].view(dtype)

    def _read_to_end(self, source: int, used: int) -> int:
        while True:
            if self._buffer.size - used < _READ_BYTES:
                grown = np.empty(max(2 * self._buffer.size, 2 * _READ_BYTES), np.uint8)
                grown[:used] = self._buffer[:used]
                self._buffer = grown
            count = os.readv(source, [self._buffer[used:].data])
            if count == 0:
                return used
            used += count

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
