"""The preload library for CRIU: that it is proven right here, and that wrong ones are found out."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from snaplib.checkpoint import shimproof
from snaplib.checkpoint.shimproof import trust
from snaplib.criu import Criu, Shim, find_criu, prepare_shim
from snaplib.criu import shim as shim_module
from snaplib.errors import ShimUnusable
from snaplib.track.armed import ArmedProcess

pytestmark = pytest.mark.require("all", "write_protect")

SOURCE = Path(shim_module.__file__).with_name("softdirty.c")

#: What is wrong with the library, what to change for that, and what the proof says of it.
WRONG = {
    "all pages are clean": (
        "is_clean(fd, &region) ? 0 : SOFT_DIRTY",
        "0",
        r"of \d+ pages that a trial dump left out \d+ had changed",
    ),
    "unregistered mappings are clean": (
        "if (!(region->categories & WPALLOWED) || region->categories & WRITTEN) return 0;",
        "if (region->categories & WPALLOWED && region->categories & WRITTEN) return 0;",
        "had changed",
    ),
    "markers are clean": (
        "return all_in_swap(fd, region->start, region->end);",
        "return 1;",
        "had changed",
    ),
    "all pages are dirty": (
        "is_clean(fd, &region) ? 0 : SOFT_DIRTY",
        "SOFT_DIRTY",
        r"\d+ pages that had not changed were sent",
    ),
    "the test is not answered": (
        "entries[i] |= ENTRY_SOFT_DIRTY",
        "entries[i] |= 0",
        "a trial dump failed",
    ),
}


@pytest.fixture
def criu() -> Criu:
    return find_criu()


def build(folder: Path, source: str) -> Shim:
    (folder / "changed.c").write_text(source)
    path = folder / "changed.so"
    options = [one for one in shim_module._OPTIONS if not one.startswith("-W") or "," in one]
    subprocess.run(["gcc", *options, "-o", path, folder / "changed.c"], check=True)
    return Shim(path, "changed")


def test_it_is_proven(criu) -> None:
    told = shimproof.prove_shim(criu, prepare_shim(criu))

    left_out, sent = (int(word) for word in told.split() if word.isdigit())
    assert left_out > 2 * sent


def test_it_is_proven_where_all_is_slow(criu, monkeypatch) -> None:
    """A task may not stand still for so long, but the child of the proof."""
    settle = ArmedProcess.settle

    def late(*arguments, **options) -> None:
        time.sleep(1.2)
        settle(*arguments, **options)

    monkeypatch.setattr(ArmedProcess, "settle", late)
    assert shimproof.prove_shim(criu, prepare_shim(criu))


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_one_is_found_out(criu, tmp_path, what) -> None:
    old, new, said = WRONG[what]
    source = SOURCE.read_text()
    assert old in source
    shim = build(tmp_path, source.replace(old, new))

    with pytest.raises(ShimUnusable, match=said):
        shimproof.prove_shim(criu, shim)


def test_a_proof_is_remembered_for_the_pair_alone(criu, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SNAPLIB_CACHE_DIR", str(tmp_path))
    tried = []
    monkeypatch.setattr(trust, "prove_shim", lambda *pair: tried.append(pair))
    for _ in range(2):
        trust._problem.cache_clear()
        shimproof.trusted_shim(criu)
    assert len(tried) == 1
    other = tmp_path / "sbin/criu"
    other.parent.mkdir()
    shutil.copy(criu.path, other)
    shimproof.trusted_shim(Criu(other, criu.version))
    assert len(tried) == 2
    trust._problem.cache_clear()


def test_a_failure_is_not_remembered_for_good(criu, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SNAPLIB_CACHE_DIR", str(tmp_path))

    def refuse(*_):
        raise ShimUnusable("made up")

    with monkeypatch.context() as patched:
        patched.setattr(trust, "prove_shim", refuse)
        trust._problem.cache_clear()
        with pytest.raises(ShimUnusable, match="made up"):
            shimproof.trusted_shim(criu)
    trust._problem.cache_clear()
    assert shimproof.trusted_shim(criu).path.exists()


def test_what_criu_knows_of_the_kernel_is_neither_read_nor_written(criu) -> None:
    """Its cache would tell runs without the library that every page is clean."""
    check = f"{criu.path} check --feature mem_dirty_track"
    preload = f"LD_PRELOAD={prepare_shim(criu).path}"
    script = f"""
        mount -t tmpfs none /run
        {preload} {check} && test ! -e /run/criu.kdat || exit 11
        {check}; test -s /run/criu.kdat || exit 12
        sum=$(cksum /run/criu.kdat)
        {preload} {check} && test "$sum" = "$(cksum /run/criu.kdat)" || exit 13
        ! {check} || exit 14
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_programs_that_criu_starts_do_not_have_it(criu) -> None:
    environment = {"LD_PRELOAD": str(prepare_shim(criu).path)}
    told = subprocess.run(
        ["/bin/sh", "-c", "env"], env=environment, capture_output=True, text=True, check=True
    )

    assert "LD_PRELOAD" not in told.stdout
    assert told.stderr == ""
