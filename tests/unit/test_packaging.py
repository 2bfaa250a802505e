"""What is shipped and how it is set up: the wheel, the sdist, the dependency lists, tools/setup."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import snaplib

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "tools" / "setup"
PREFIX = ROOT / ".venv" / "criu"


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def shipped_files(folder: str) -> set[str]:
    """Files under a folder of the checkout that a build must carry, relative to that folder."""
    top = ROOT / folder
    return {
        str(path.relative_to(top))
        for path in top.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != ".gitkeep"
    }


def test_the_wheel_carries_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())

    assert {f"snaplib/{name}" for name in shipped_files("snaplib")} <= names
    assert "snaplib/py.typed" in names


def test_the_wheel_carries_the_ebpf_sources(wheel: zipfile.ZipFile) -> None:
    assert {f"snaplib/_bpf/{name}" for name in shipped_files("bpf")} <= set(wheel.namelist())


def test_the_wheel_carries_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "snaplib",
        f"snaplib-{snaplib.__version__}.dist-info",
    }


def test_the_wheel_installs_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    info = f"snaplib-{snaplib.__version__}.dist-info"

    assert "snaplib = snaplib.cli:program" in wheel.read(f"{info}/entry_points.txt").decode()
    assert b"Apache License" in wheel.read(f"{info}/licenses/LICENSE")


def test_the_sdist_can_be_worked_in(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert {"Makefile", "pyproject.toml", "tools/setup", "tests/unit/test_packaging.py"} <= names


@pytest.mark.parametrize("name", ["bcc", "pycriu", "criu"])
def test_debian_packages_are_not_asked_of_pypi(pyproject: dict[str, Any], name: str) -> None:
    """PyPI's `bcc` is an unrelated package with the same import name; `pycriu` is not there."""
    groups = pyproject["dependency-groups"].values()
    asked = {
        line.split(";")[0].split(">=")[0].strip()
        for one in [pyproject["project"]["dependencies"], *groups]
        for line in one
        if isinstance(line, str)
    }

    assert "numpy" in asked
    assert name not in asked


def test_dependencies_are_listed_once(pyproject: dict[str, Any]) -> None:
    assert "optional-dependencies" not in pyproject["project"]
    assert not list(ROOT.glob("*requirements*.txt"))
    assert not (ROOT / "setup.cfg").exists()


def run_setup(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SETUP), *arguments],
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_setup_explains_itself() -> None:
    done = run_setup("--help")

    assert done.returncode == 0
    assert "usage: tools/setup" in done.stdout
    assert "--rebuild-criu" in done.stdout


def test_setup_refuses_what_it_does_not_know() -> None:
    done = run_setup("--fast")

    assert done.returncode == 2
    assert "unknown option --fast" in done.stderr


def test_setup_says_which_step_failed_and_what_to_do(tmp_path: Path) -> None:
    done = run_setup("--root", str(tmp_path))

    assert done.returncode == 1
    assert "is no checkout of snaplib" in done.stderr
    assert "what to do: give --root its top folder" in done.stderr


def test_setup_names_no_package_host() -> None:
    """It uses the mirror and the index that the machine is configured for, and no others."""
    for path in (SETUP, ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / ".ci" / "run"):
        code = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        assert not [line for line in code if "://" in line and "schemas" not in line], path


@pytest.mark.skipif(not PREFIX.exists(), reason="no CRIU prefix in .venv: run tools/setup")
def test_the_criu_prefix_is_independent_of_the_users_libraries(tmp_path: Path) -> None:
    """Libraries on LD_LIBRARY_PATH that are none would stop any program that looked there."""
    for name in ("libc.so.6", "libnl-3.so.200", "libprotobuf-c.so.1", "libgnutls.so.30"):
        (tmp_path / name).write_text("no library")

    done = subprocess.run(
        [str(PREFIX / "sbin" / "criu"), "--version"],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        text=True,
        capture_output=True,
        check=False,
    )

    if "suite installed" in (PREFIX / "MANIFEST").read_text():
        pytest.skip("CRIU is the system's own here")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Version: ")
