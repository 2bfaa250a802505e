"""BTF and bytecode, from bytes made here."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from snaplib.kernel.bpf import BpfUnavailable, Btf, Bytecode, BytecodeCache
from snaplib.kernel.bpf import cache as cache_module
from snaplib.kernel.bpf.bytecode import CompiledProgram, MapDefinition
from snaplib.kernel.bpf.cache import cache_dir, source_dir
from snaplib.kernel.bpf.compiler import layout_defines, whole_text


def btf() -> bytes:
    """Two structures, one with an unnamed union in it, and a function."""
    strings = bytearray(b"\0")

    def name(text: str) -> int:
        at = len(strings)
        strings.extend(text.encode() + b"\0")
        return at

    types = b""

    def add(text: str, kind: int, count: int, size: int, *rest: int) -> None:
        nonlocal types
        types += struct.pack("<III", name(text) if text else 0, kind << 24 | count, size)
        types += struct.pack(f"<{len(rest)}I", *rest)

    add("int", 1, 0, 4, 32)  # 1
    add("inner", 4, 1, 8, name("deep"), 1, 32)  # 2: deep at byte 4
    add("", 5, 2, 8, name("one"), 1, 0, name("two"), 2, 0)  # 3: union
    add("outer", 4, 2, 24, name("first"), 5, 64, 0, 3, 128)  # 4: first at 8, the union at 16
    add("alias", 8, 0, 2)  # 5: typedef of inner
    add("work", 12, 0, 1)  # 6: function
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + bytes(strings)


def test_offsets_of_members() -> None:
    found = Btf(btf())
    assert found.offset("outer.first") == 8
    assert found.offset("outer.first.deep") == 12, "through a typedef"
    assert found.offset("outer.one") == 16, "of an unnamed union"
    assert found.offset("outer.two.deep") == 20
    assert found.size("outer") == 24
    assert found.function_id("work") == 6


@pytest.mark.parametrize("path", ["nothing", "outer.nothing", "outer.first.deep.deeper"])
def test_what_is_not_there_is_told(path) -> None:
    with pytest.raises(LookupError, match="BTF has no"):
        Btf(btf()).offset(path)


@pytest.mark.parametrize("cut", [0, 5, 24, 60])
def test_btf_cut_short(cut) -> None:
    with pytest.raises(ValueError, match="cut short"):
        Btf(btf()[:cut])


def test_defines_for_a_source() -> None:
    source = "OFF_outer__first OPT_outer__new OPT_outer__one SIZE_inner OFF_outer__first"
    assert layout_defines(source, Btf(btf())) == {
        "OFF_outer__first": 8,
        "OPT_outer__new": -1,
        "OPT_outer__one": 16,
        "SIZE_inner": 8,
    }
    with pytest.raises(LookupError, match=r"outer\.new"):
        layout_defines("OFF_outer__new", Btf(btf()))


def test_own_headers_are_put_into_the_text_once() -> None:
    text = whole_text(source_dir() / "tcp.c")
    assert "#include <snaplib/" not in text
    assert text.count('BPF_F_TABLE("hash", u32, u64, members') == 1


PROGRAM = (
    struct.pack("<BBhi", 0x18, 1 | 1 << 4, 0, 9) + bytes(8) + struct.pack("<BBhi", 0x95, 0, 0, 9)
)


def test_bytecode_survives_being_text() -> None:
    program = CompiledProgram.from_raw("work", PROGRAM, {9: "table"}, 6)
    assert program.references == ((0, "table"),)
    assert program.linked({"table": 9}) == PROGRAM
    code = Bytecode("0.1", (MapDefinition("table", 1, 4, 8, 16, 1),), (program,))
    assert Bytecode.from_json(code.to_json()) == code


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', '{"format": 1}'])
def test_damaged_bytecode_is_told(text) -> None:
    with pytest.raises(ValueError, match="not bytecode"):
        Bytecode.from_json(text)


@pytest.fixture
def cache(tmp_path: Path) -> BytecodeCache:
    sources = tmp_path / "bpf"
    (sources / "include").mkdir(parents=True)
    (sources / "one.c").write_text("int one;")
    (sources / "include/a.h").write_text("int a;")
    (tmp_path / "btf").write_bytes(btf())
    (tmp_path / "cache").mkdir(mode=0o700)
    return BytecodeCache(tmp_path / "cache", sources, tmp_path / "btf")


def test_another_source_header_or_kernel_is_another_file(cache, tmp_path) -> None:
    paths = {cache.path("one")}
    (tmp_path / "bpf/one.c").write_text("int two;")
    paths.add(cache.path("one"))
    (tmp_path / "bpf/include/a.h").write_text("int b;")
    paths.add(cache.path("one"))
    (tmp_path / "btf").write_bytes(btf() + b"more")
    paths.add(BytecodeCache(cache.folder, cache.sources, tmp_path / "btf").path("one"))
    assert len(paths) == 4


def test_cached_bytecode_needs_no_bcc(cache, monkeypatch) -> None:
    monkeypatch.setattr(cache_module, "installed_version", lambda: None)
    with pytest.raises(BpfUnavailable, match="python3-bpfcc"):
        cache.get(["one"])
    code = Bytecode("0.1", (), ())
    cache.path("one").write_text(code.to_json())
    assert cache.get(["one"]) == {"one": code}


def test_a_kernel_without_btf_is_told(cache, tmp_path) -> None:
    (tmp_path / "btf").unlink()
    with pytest.raises(BpfUnavailable, match="CONFIG_DEBUG_INFO_BTF"):
        cache.get(["one"])


def test_the_cache_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SNAPLIB_CACHE_DIR", raising=False)
    assert cache_dir() == tmp_path / "xdg/snaplib/bpf"
    monkeypatch.setenv("SNAPLIB_CACHE_DIR", str(tmp_path / "named"))
    folder = cache_dir()
    assert folder == tmp_path / "named/bpf"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(BpfUnavailable, match="not only ours"):
        cache_dir()
