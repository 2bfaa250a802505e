"""Compiles program sets with bcc: a program of its own, run in a child process.

``python -m snaplib.kernel.bpf.compiler FOLDER SOURCE...`` writes the `Bytecode` of each source into a
folder, ``faults.json`` for ``faults.c``. LLVM takes 130 MB and may abort its process; here that hurts
nobody else. This is the only module that imports bcc, which is no package on PyPI but Debian's
python3-bpfcc.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path
from typing import Any

from snaplib.kernel.bpf.bcc import BCC_FOLDER
from snaplib.kernel.bpf.btf import Btf
from snaplib.kernel.bpf.bytecode import Bytecode, CompiledProgram, MapDefinition

__all__ = ["compile_set", "layout_defines", "main", "whole_text"]

_NAMES = re.compile(r"\b(OFF|OPT|SIZE)_(\w+)\b")
_OWN_HEADER = re.compile(r"^#include <(snaplib/\w+\.h)>$", re.MULTILINE)
_ITERATOR = re.compile(r"bpf_iter__(task_file|task)(?:_\w+)?$")


def layout_defines(source: str, btf: Btf) -> dict[str, int]:
    """Return the value of every OFF_*, OPT_* and SIZE_* that a source names.

    Raises:
        LookupError: The kernel has no such member, and the source does not say that it may lack it.
    """
    found: dict[str, int] = {}
    for kind, name in sorted(set(_NAMES.findall(source))):
        path = name.replace("__", ".")
        if kind == "SIZE":
            found[f"SIZE_{name}"] = btf.size(path)
            continue
        try:
            found[f"{kind}_{name}"] = btf.offset(path)
        except LookupError:
            if kind == "OFF":
                raise
            found[f"OPT_{name}"] = -1
    return found


def whole_text(source: Path) -> str:
    """Return a source with our own headers in it, each once.

    bcc rewrites map access in the main file only; in an included one it would stay what it is, a call
    through a pointer that the verifier refuses.
    """
    seen: set[str] = set()

    def with_headers(text: str) -> str:
        def insert(found: re.Match[str]) -> str:
            name = found[1]
            if name in seen:
                return ""
            seen.add(name)
            return with_headers((source.parent / "include" / name).read_text())

        return _OWN_HEADER.sub(insert, text)

    return with_headers(source.read_text())


def compile_set(source: Path, btf: Btf) -> Bytecode:
    """Compile a source file.

    Args:
        source: A file in the folder whose `include` holds the headers.
        btf: Of the kernel it is for.

    Raises:
        ImportError: bcc is not installed.
        LookupError: The kernel lacks a structure or member that the source needs.
        RuntimeError: The compiler refused it; it has said why on stderr.
    """
    # bcc looks here for headers, and nowhere else then.
    os.environ["BCC_KERNEL_SOURCE"] = str(source.parent)
    sys.path.append(str(BCC_FOLDER))
    import bcc  # noqa: PLC0415  LLVM behind it; only this process pays

    text = whole_text(source)
    macros = {"PAGE_SIZE": os.sysconf("SC_PAGE_SIZE"), **layout_defines(text, btf)}
    flags = [f"-D{name}={value}" for name, value in macros.items()]
    # bcc's own headers and rewritten code warn; our sources are checked by being loaded.
    try:
        module = bcc.BPF(text=text, cflags=[*flags, "-Wno-everything"])
    except Exception as error:  # bcc raises nothing more precise
        raise RuntimeError(f"bcc cannot compile {source}: {error}") from error
    return _extract(module, bcc.lib, btf, str(bcc.__version__))


def _extract(module: Any, library: Any, btf: Btf, version: str) -> Bytecode:
    """Take the programs and maps out of bcc's module (bcc: src/cc/bcc_common.h)."""

    def table(field: str, restype: Any, index: int) -> Any:
        function = library[f"bpf_table_{field}"]
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        function.restype = restype
        return function(module.module, index)

    library.bpf_num_tables.argtypes = [ctypes.c_void_p]
    library.bpf_num_tables.restype = ctypes.c_size_t
    definitions: dict[str, MapDefinition] = {}
    names: dict[int, str] = {}
    for index in range(library.bpf_num_tables(module.module)):
        name = table("name", ctypes.c_char_p, index).decode()
        names[table("fd_id", ctypes.c_int, index)] = name
        definitions[name] = MapDefinition(
            name=name,
            kind=table("type_id", ctypes.c_int, index),
            key_bytes=table("key_size_id", ctypes.c_size_t, index),
            value_bytes=table("leaf_size_id", ctypes.c_size_t, index),
            entries=table("max_entries_id", ctypes.c_size_t, index),
            flags=table("flags_id", ctypes.c_int, index),
        )
    programs = []
    for index in range(library.bpf_num_functions(module.module)):
        name = library.bpf_function_name(module.module, index).decode()
        iterator = _ITERATOR.match(name)
        target = btf.function_id(f"bpf_iter_{iterator[1]}") if iterator else 0
        code = module.dump_func(name.encode())
        programs.append(CompiledProgram.from_raw(name, code, names, target))
    used = {name for program in programs for _, name in program.references}
    return Bytecode(
        compiler=version,
        maps=tuple(one for name, one in definitions.items() if name in used),
        programs=tuple(programs),
    )


def main(arguments: list[str]) -> int:
    """Compile as the command line says; a failure is one line on stderr."""
    folder, *sources = arguments
    try:
        btf = Btf.of_kernel()
        for source in map(Path, sources):
            bytecode = compile_set(source, btf)
            Path(folder, f"{source.stem}.json").write_text(bytecode.to_json())
    except (ImportError, LookupError, OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201  this is a command
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
