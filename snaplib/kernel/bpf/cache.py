"""Bytecode of the program sets: from the cache, or compiled once and kept there.

The folder is ``$SNAPLIB_CACHE_DIR``, else ``$XDG_CACHE_HOME/snaplib``, else ``~/.cache/snaplib``. It is ours
alone (0700), and that is what guards it, for what is in it runs in the kernel. A file's name is a hash of
the source and of the kernel's type information, which decides all layouts; so a file is never wrong, only
missing. Where bcc is not
installed a cached file still loads; where a newer bcc is, its bytecode is made again.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import xxhash

from snaplib import runtime
from snaplib.errors import UsageError
from snaplib.kernel.bpf.bcc import BCC_FOLDER, installed_version
from snaplib.kernel.bpf.btf import KERNEL_BTF
from snaplib.kernel.bpf.bytecode import Bytecode
from snaplib.scratch import scratch_dir

__all__ = ["BpfUnavailable", "BytecodeCache", "cache_dir", "source_dir"]

#: bcc takes a second for a set on an idle machine.
_COMPILE_TIMEOUT_S = 120.0


class BpfUnavailable(OSError):
    """eBPF programs cannot be used here; the message says why, and what would help."""


def cache_dir() -> Path:
    """Return the folder of compiled programs, made if need be.

    Raises:
        BpfUnavailable: It cannot be made, or others may write to it.
    """
    try:
        return runtime.cache_dir("bpf")
    except UsageError as error:
        raise BpfUnavailable(f"{error.message}: {error.hint}") from None


def source_dir() -> Path:
    """Return the folder of the C sources: in a wheel, or in a checkout."""
    package = Path(__file__).parents[2]
    installed = package / "_bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


class BytecodeCache:
    """Gives the bytecode of program sets.

    Args:
        folder: Where compiled sets are kept; made if need be.
        sources: Where the C sources are.
        btf: The kernel's type information.
    """

    def __init__(
        self, folder: Path | None = None, sources: Path | None = None, btf: Path = KERNEL_BTF
    ) -> None:
        self.folder = cache_dir() if folder is None else folder
        self.sources = source_dir() if sources is None else sources
        self._btf = btf
        self._kernel: bytes | None = None

    def get(self, names: Sequence[str]) -> dict[str, Bytecode]:
        """Return the bytecode of sets by their names, compiling what is not there.

        Raises:
            BpfUnavailable: The kernel has no type information, or something must be compiled and cannot be.
        """
        wanted = {name: self.path(name) for name in names}
        bcc = installed_version()
        found: dict[str, Bytecode] = {}
        for name, path in wanted.items():
            bytecode = _read(path)
            if bytecode is not None and bcc in (None, bytecode.compiler):
                found[name] = bytecode
        missing = [name for name in names if name not in found]
        if missing:
            if bcc is None:
                raise BpfUnavailable(
                    f"bcc is not installed in {BCC_FOLDER} (Debian package python3-bpfcc)"
                    f" and {self.folder} has no compiled programs for this kernel"
                )
            found.update(self._compile(missing, wanted))
        return found

    def discard(self, name: str) -> None:
        """Forget a set, for example because the kernel has refused it."""
        self.path(name).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Return where the bytecode of a set is, or would be, for this kernel.

        Raises:
            BpfUnavailable: The kernel has no type information.
        """
        digest = xxhash.xxh3_128(self._kernel_digest())
        headers = sorted((self.sources / "include").rglob("*.h"))
        for file in (self.sources / f"{name}.c", *headers):
            digest.update(f"\0{file.relative_to(self.sources)}\0".encode())
            digest.update(file.read_bytes())
        return self.folder / f"{name}-{digest.hexdigest()}.json"

    def _kernel_digest(self) -> bytes:
        if self._kernel is None:
            digest = xxhash.xxh3_128(platform.machine().encode())
            try:
                # In pieces: the whole is 5 MB that nobody else needs.
                with self._btf.open("rb") as file:
                    while part := file.read(1 << 16):
                        digest.update(part)
            except OSError as error:
                raise BpfUnavailable(
                    f"the kernel's type information {self._btf} cannot be read ({error.strerror}):"
                    " it needs CONFIG_DEBUG_INFO_BTF"
                ) from None
            self._kernel = digest.digest()
        return self._kernel

    def _compile(self, names: Sequence[str], targets: dict[str, Path]) -> dict[str, Bytecode]:
        found: dict[str, Bytecode] = {}
        with scratch_dir("compile", self.folder) as scratch:
            command = [sys.executable, "-m", "snaplib.kernel.bpf.compiler", os.fspath(scratch)]
            command += [os.fspath(self.sources / f"{name}.c") for name in names]
            environment = dict(os.environ)
            # The package may be on a path that only this process knows.
            environment["PYTHONPATH"] = os.fspath(Path(__file__).parents[3])
            try:
                result = subprocess.run(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_COMPILE_TIMEOUT_S,
                    check=False,
                    cwd="/",
                )
            except subprocess.TimeoutExpired:
                raise BpfUnavailable(
                    f"bcc took more than {_COMPILE_TIMEOUT_S:.0f} s to compile {', '.join(names)}"
                ) from None
            if result.returncode != 0:
                raise BpfUnavailable(_failure(result))
            for name in names:
                compiled = scratch / f"{name}.json"
                bytecode = _read(compiled)
                if bytecode is None:
                    raise BpfUnavailable(f"bcc made nothing of {name}.c")
                # A rename: whoever reads finds the whole file or none, whoever writes as well wins or not.
                compiled.replace(targets[name])
                found[name] = bytecode
        return found


def _read(path: Path) -> Bytecode | None:
    """Return what is in a file; None when it is missing or damaged, which compiling mends."""
    try:
        return Bytecode.from_json(path.read_text())
    except (OSError, ValueError):
        return None


def _failure(result: subprocess.CompletedProcess[bytes]) -> str:
    if result.returncode < 0:
        how = f"was ended by {signal.Signals(-result.returncode).name}"
    else:
        how = f"failed with status {result.returncode}"
    lines = result.stderr.decode(errors="replace").split("\n")
    said = [line for line in lines if line.strip()]
    why = next((line for line in said if "error:" in line), said[-1] if said else "no message")
    return f"the compiler of eBPF programs {how}: {why.strip()}"
