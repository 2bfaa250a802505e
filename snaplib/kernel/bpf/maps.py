"""Maps that programs and this process share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from snaplib.kernel.bpf import abi
from snaplib.kernel.bpf.bytecode import MapDefinition

__all__ = ["BpfMap", "possible_cpus"]

_PER_CPU = frozenset((abi.MAP_PERCPU_HASH, abi.MAP_PERCPU_ARRAY))


def possible_cpus(path: Path = Path("/sys/devices/system/cpu/possible")) -> int:
    """Return how many CPUs this machine may ever have: maps per CPU hold a value for each."""
    return max(int(part.split("-")[-1]) for part in path.read_text().strip().split(",")) + 1


class BpfMap:
    """One map; it is gone when it is closed and no program uses it.

    Values of maps per CPU are arrays with one row a CPU, all others have one row.

    Args:
        definition: What it is to be.

    Raises:
        OSError: The kernel would not make it.
    """

    def __init__(self, definition: MapDefinition) -> None:
        self.definition = definition
        self._rows = possible_cpus() if definition.kind in _PER_CPU else 1
        # The kernel pads each CPU's value to 8 bytes.
        self._row_bytes = (
            -(-definition.value_bytes // 8) * 8 if self._rows > 1 else definition.value_bytes
        )
        self.descriptor = abi.map_create(
            definition.kind,
            definition.key_bytes,
            definition.value_bytes,
            definition.entries,
            flags=definition.flags,
            name=definition.name,
        )

    def close(self) -> None:
        """Give up our hold on it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def get(self, key: bytes, dtype: np.dtype[np.void] | type[np.generic]) -> np.ndarray | None:
        """Return a value, shape (rows,), or None when the key is not there."""
        raw = abi.map_lookup(self.descriptor, key, self._rows * self._row_bytes)
        return None if raw is None else np.frombuffer(raw, dtype=dtype)

    def set(self, key: bytes, value: bytes) -> None:
        """Set a value; in a map per CPU, of every CPU.

        Raises:
            OSError: E2BIG when it is full.
        """
        abi.map_update(self.descriptor, key, value.ljust(self._row_bytes, b"\0") * self._rows)

    def add(self, key: bytes, value: bytes) -> bool:
        """Set a value as `set` does, unless there is one; return whether there was none.

        Raises:
            OSError: E2BIG when it is full.
        """
        padded = value.ljust(self._row_bytes, b"\0") * self._rows
        try:
            abi.map_update(self.descriptor, key, padded, only_new=True)
        except FileExistsError:
            return False
        return True

    def delete(self, key: bytes) -> bool:
        """Take a key out; return whether it was there."""
        return abi.map_delete(self.descriptor, key)

    def items(
        self, key_type: type[np.generic], dtype: np.dtype[np.void] | type[np.generic]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return all keys, shape (n,), and values, shape (n, rows), of a hash map."""
        keys, values = abi.map_lookup_batch(
            self.descriptor, self.definition.key_bytes, self._rows * self._row_bytes
        )
        return (
            np.frombuffer(keys, dtype=key_type),
            np.frombuffer(values, dtype=dtype).reshape(-1, self._rows),
        )
