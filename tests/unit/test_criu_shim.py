"""Where the preload library for CRIU comes from, and the folder of a parent without pages."""

from __future__ import annotations

import importlib
import shutil
import sys
import time
from pathlib import Path

import pytest

from snaplib.criu import Criu, find_criu, prepare_shim, write_bare_parent
from snaplib.criu import shim as shim_module
from snaplib.errors import CriuMissing, ShimUnusable

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture
def criu(tmp_path, monkeypatch) -> Criu:
    monkeypatch.setenv("SNAPLIB_CACHE_DIR", str(tmp_path / "cache"))
    return Criu(tmp_path / "criu/sbin/criu", (4, 2))


@needs_compiler
def test_it_is_built_once_into_a_folder_of_ours(criu, tmp_path, monkeypatch) -> None:
    shim = prepare_shim(criu)

    assert shim.path.parent == tmp_path / "cache/criu"
    assert shim.path.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in shim.path.parent.iterdir()] == [shim.path.name]
    assert shim.environment() == {"LD_PRELOAD": str(shim.path)}
    monkeypatch.setenv("PATH", "")
    assert prepare_shim(criu) == shim


@needs_compiler
def test_the_installed_one_comes_first(criu, tmp_path) -> None:
    shim_module.install_shim(criu.path)

    shim = prepare_shim(criu)
    assert shim.path.parent == tmp_path / "criu/lib/snaplib"
    # Others could have changed it.
    shim.path.parent.chmod(0o777)
    assert prepare_shim(criu).path.parent == tmp_path / "cache/criu"


def test_without_a_compiler_it_says_what_to_install(criu, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        ShimUnusable, match=r"no C compiler - run tools/setup, or apt-get install gcc"
    ):
        prepare_shim(criu)


def test_a_compiler_that_fails_is_quoted(criu, tmp_path, monkeypatch) -> None:
    compiler = tmp_path / "bin/gcc"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\necho no such header >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:/bin:/usr/bin")
    with pytest.raises(ShimUnusable, match="no such header"):
        prepare_shim(criu)
    assert list((tmp_path / "cache/criu").iterdir()) == []


def test_a_path_that_cannot_be_preloaded_is_refused(criu, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SNAPLIB_CACHE_DIR", str(tmp_path / "with blank"))
    with pytest.raises(ShimUnusable, match="SNAPLIB_CACHE_DIR"):
        prepare_shim(criu)


def test_criu_reads_the_bare_parent(tmp_path) -> None:
    """Read back by pycriu, which is generated from CRIU's own descriptions."""
    try:
        paths = [path for path in find_criu().python_paths() if (path / "pycriu").is_dir()]
    except CriuMissing:
        pytest.skip("CRIU is not installed")
    if not paths:
        pytest.skip("pycriu is not installed")
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    name = write_bare_parent(tmp_path)
    content = (tmp_path / name / "inventory.img").read_bytes()

    assert content[:4] == 0x58313116.to_bytes(4, "little")
    size = int.from_bytes(content[4:8], "little")
    assert len(content) == 8 + size
    entry = _inventory_entry(paths[0]).FromString(content[8:])
    assert entry.img_version == 2
    assert before <= entry.dump_uptime / 1e6 + 1e-5
    assert entry.dump_uptime / 1e6 <= time.clock_gettime(time.CLOCK_BOOTTIME)


def _inventory_entry(folder: Path):
    sys.path.insert(0, str(folder / "pycriu/images"))
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("pycriu.images.inventory_pb2").inventory_entry
    finally:
        del sys.path[:2]
