"""Compiled program sets: records that can be written to a file and loaded without a compiler."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import attrs

__all__ = ["Bytecode", "CompiledProgram", "MapDefinition"]

_FORMAT = 1

_INSTRUCTION = struct.Struct("<BBhi")
_LOAD_64_BITS = 0x18  # BPF_LD | BPF_DW | BPF_IMM: two instructions long
_MAP_BY_DESCRIPTOR = 1  # BPF_PSEUDO_MAP_FD, in its source register


@attrs.frozen
class MapDefinition:
    """A map that programs use; the fields are those of `abi.map_create`."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


@attrs.frozen
class CompiledProgram:
    """One program.

    Attributes:
        name: Name of its function.
        instructions: With zeros where descriptors of maps go.
        references: Byte offsets of instructions that load a map, and the name of the map.
        attach_btf_id: Of an iterator's function; 0 for raw tracepoints.
    """

    name: str
    instructions: bytes
    references: tuple[tuple[int, str], ...]
    attach_btf_id: int

    @classmethod
    def from_raw(
        cls, name: str, code: bytes, names: dict[int, str], attach_btf_id: int
    ) -> CompiledProgram:
        """Make it from instructions that hold the descriptors of the compiler's own maps.

        Args:
            name: Name of its function.
            code: The instructions.
            names: Descriptor -> name of the map.
            attach_btf_id: Of an iterator's function, else 0.
        """
        patched = bytearray(code)
        references = []
        position = 0
        while position < len(code):
            operation, registers, _, immediate = _INSTRUCTION.unpack_from(code, position)
            if operation == _LOAD_64_BITS:
                if registers >> 4 == _MAP_BY_DESCRIPTOR:
                    references.append((position, names[immediate]))
                    struct.pack_into("<i", patched, position + 4, 0)
                position += 8
            position += 8
        return cls(name, bytes(patched), tuple(references), attach_btf_id)

    def linked(self, descriptors: dict[str, int]) -> bytes:
        """Return the instructions with the descriptors of maps filled in."""
        code = bytearray(self.instructions)
        for position, name in self.references:
            struct.pack_into("<i", code, position + 4, descriptors[name])
        return bytes(code)


@attrs.frozen
class Bytecode:
    """One program set, compiled for one kernel.

    Attributes:
        compiler: Version of bcc.
        maps: The maps that its programs refer to.
        programs: In the order of the source.
    """

    compiler: str
    maps: tuple[MapDefinition, ...]
    programs: tuple[CompiledProgram, ...]

    def to_json(self) -> str:
        """Return it as text."""
        data = attrs.asdict(self)
        data["format"] = _FORMAT
        for program in data["programs"]:
            program["instructions"] = base64.b64encode(program["instructions"]).decode()
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> Bytecode:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is something else, or damaged.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            if data["format"] != _FORMAT:
                raise ValueError(f"bytecode of format {data['format']}")
            return cls(
                compiler=data["compiler"],
                maps=tuple(MapDefinition(**one) for one in data["maps"]),
                programs=tuple(
                    CompiledProgram(
                        name=one["name"],
                        instructions=base64.b64decode(one["instructions"], validate=True),
                        references=tuple((at, name) for at, name in one["references"]),
                        attach_btf_id=one["attach_btf_id"],
                    )
                    for one in data["programs"]
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not bytecode: {error!r}") from None
