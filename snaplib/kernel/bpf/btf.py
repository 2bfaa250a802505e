"""Layouts of the running kernel's structures, from its own type information (BTF).

The format is that of the kernel's Documentation/bpf/btf.rst and include/uapi/linux/btf.h. Only what is
needed to find members of structures and the ids of functions is read.
"""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["KERNEL_BTF", "Btf"]

#: BTF of the running kernel (CONFIG_DEBUG_INFO_BTF).
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")

# Kinds of types.
_STRUCT, _UNION, _FUNCTION = 4, 5, 12
#: typedef, volatile, const, restrict, type tag: names and qualifiers for another type.
_TRANSPARENT = frozenset((8, 9, 10, 11, 18))
#: Bytes that follow a type of each kind: fixed, and for each of its `vlen` entries.
_TRAILERS = {
    0: (0, 0),  # void
    1: (4, 0),  # int
    2: (0, 0),  # pointer
    3: (12, 0),  # array
    4: (0, 12),  # struct
    5: (0, 12),  # union
    6: (0, 8),  # enum
    7: (0, 0),  # forward declaration
    8: (0, 0),  # typedef
    9: (0, 0),  # volatile
    10: (0, 0),  # const
    11: (0, 0),  # restrict
    12: (0, 0),  # function
    13: (0, 8),  # prototype of a function
    14: (4, 0),  # variable
    15: (0, 12),  # section
    16: (0, 0),  # float
    17: (4, 0),  # declaration tag
    18: (0, 0),  # type tag
    19: (0, 12),  # enum of 64 bits
}


class Btf:
    """Type information in the BTF format.

    Args:
        data: A whole BTF blob, such as the content of `KERNEL_BTF`.

    Raises:
        ValueError: It is not BTF of little-endian order, or holds kinds this reader does not know.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise ValueError(f"BTF is cut short: {len(data)} bytes")
        magic, version, _, header_bytes, types, types_bytes, strings, strings_bytes = (
            _HEADER.unpack_from(data)
        )
        if magic != _MAGIC or version != 1:
            raise ValueError(f"not BTF version 1: magic {magic:#x}, version {version}")
        end = header_bytes + types + types_bytes
        if end > len(data) or header_bytes + strings + strings_bytes > len(data):
            raise ValueError(f"BTF is cut short: {len(data)} bytes")
        self._data = data
        self._strings = header_bytes + strings
        #: Position of each type by its id; id 0 is void and is nowhere.
        self._positions = [0]
        self._named: dict[tuple[bool, str], int] = {}
        position = header_bytes + types
        while position < end:
            name, info, _ = _TYPE.unpack_from(data, position)
            kind = info >> 24 & 0x1F
            try:
                fixed, each = _TRAILERS[kind]
            except KeyError:
                raise ValueError(f"BTF has a kind {kind} that is not known") from None
            if name and kind in (_STRUCT, _UNION, _FUNCTION):
                key = (kind == _FUNCTION, self._string(name))
                self._named.setdefault(key, len(self._positions))
            self._positions.append(position)
            position += _TYPE.size + fixed + each * (info & 0xFFFF)

    @classmethod
    def of_kernel(cls) -> Btf:
        """Read the running kernel's.

        Raises:
            OSError: It has none, or it may not be read.
        """
        return cls(KERNEL_BTF.read_bytes())

    def offset(self, path: str) -> int:
        """Return the offset of a member in bytes.

        Args:
            path: Structure and members, with dots: ``sock.sk_backlog.rmem_alloc``. Members of unnamed
                structures in it count as its own.

        Raises:
            LookupError: There is no such structure or member.
        """
        first, *members = path.split(".")
        type_id = self._structure(first)
        bits = 0
        for name in members:
            found = self._member(self._plain(type_id), name)
            if found is None:
                raise LookupError(f"BTF has no {path}")
            bits += found[0]
            type_id = found[1]
        return bits // 8

    def size(self, structure: str) -> int:
        """Return the size of a structure in bytes.

        Raises:
            LookupError: There is no such structure.
        """
        size: int = _TYPE.unpack_from(self._data, self._positions[self._structure(structure)])[2]
        return size

    def function_id(self, name: str) -> int:
        """Return the id of a function, as programs that attach to it name it.

        Raises:
            LookupError: There is no such function.
        """
        try:
            return self._named[True, name]
        except KeyError:
            raise LookupError(f"BTF has no function {name}") from None

    def _structure(self, name: str) -> int:
        try:
            return self._named[False, name]
        except KeyError:
            raise LookupError(f"BTF has no structure {name}") from None

    def _string(self, offset: int) -> str:
        start = self._strings + offset
        return self._data[start : self._data.index(b"\0", start)].decode()

    def _plain(self, type_id: int) -> int:
        while True:
            _, info, target = _TYPE.unpack_from(self._data, self._positions[type_id])
            if info >> 24 & 0x1F not in _TRANSPARENT:
                return type_id
            type_id = target

    def _member(self, type_id: int, wanted: str) -> tuple[int, int] | None:
        """Return the offset in bits and the type of a member."""
        position = self._positions[type_id]
        _, info, _ = _TYPE.unpack_from(self._data, position)
        if info >> 24 & 0x1F not in (_STRUCT, _UNION):
            return None
        # kind_flag: the upper 8 bits of an offset hold the width of a bit field.
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        for index in range(info & 0xFFFF):
            name, member_type, offset = _TYPE.unpack_from(self._data, position + 12 + 12 * index)
            if name:
                if self._string(name) == wanted:
                    return offset & mask, member_type
            elif (inner := self._member(self._plain(member_type), wanted)) is not None:
                return (offset & mask) + inner[0], inner[1]
        return None
