"""What guests are made of, built once into a cache: QEMU, kernels, and a root file system where tools/setup ran.

Each part is made in a scratch folder and renamed when it is whole, under a lock: it is safe to run twice, and to kill.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.guests.debian import STALE_IS_FINE, BuildError, Suite, keyring, mirror, run

ROOT = Path(__file__).parents[2]

#: Kernels by what they are asked for, and the suites that have them.
KERNELS = {"6.1": "bookworm", "6.12": "trixie", "newest": "sid"}

#: What runs in all guests.
DISTRIBUTION = "trixie"
PYTHON = "3.13"

#: Raise it when the way a part is made changes.
_RECIPE = 1

#: Beside what tools/setup names.
_PACKAGES = ("iproute2", "kmod", "python3", "libpython3-stdlib")

_DISK_BYTES = 6 << 30

#: Compiles the checkout, which takes an emulated machine half a minute; and for pytest, which has its own way.
_COMPILE = """
cd /opt/snaplib
.venv/bin/python -m compileall -q snaplib tests
.venv/bin/python -m pytest -q --collect-only -p no:cacheprovider tests/guests/inside tests/kernel || true
"""

_COMPRESSIONS = (
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x1f\x8b\x08", "gzip"),
)


class Image:
    """The cache, or what of it is there.

    Args:
        folder: Where it is; by default ``$SNAPLIB_GUEST_CACHE``, else ``~/.cache/snaplib/guests``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        named = os.environ.get("SNAPLIB_GUEST_CACHE")
        self.folder = folder or (Path(named) if named else Path.home() / ".cache/snaplib/guests")

    @property
    def qemu(self) -> Path:
        """Prefix of QEMU, with all of its libraries."""
        return self.folder / f"qemu-{_RECIPE}"

    @property
    def root(self) -> Path:
        """The disk with the root file system."""
        return self.folder / f"root-{self._digest()}.img"

    @property
    def _wheels(self) -> Path:
        """Folder of the packages that pip installs."""
        told = "\0".join([str(_RECIPE), PYTHON, *_requirements()])
        digest = hashlib.blake2b(told.encode(), digest_size=6).hexdigest()
        return self.folder / f"wheels-{digest}"

    def kernel(self, name: str) -> Path:
        """Folder of a kernel: its ``vmlinux``, its ``release``, its ``modules``."""
        return self.folder / f"kernel-{name}-{_RECIPE}"

    def build(self) -> None:
        """Make what is not there yet."""
        for tool in ("mmdebstrap", "mke2fs", "zstd", "xz", "dpkg-deb", "unshare"):
            if shutil.which(tool) is None:
                raise BuildError(
                    f"{tool} is not installed: apt-get install mmdebstrap e2fsprogs zstd xz-utils"
                )
        if os.geteuid() != 0:
            raise BuildError("making a root file system needs root")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            for leftover in self.folder.glob("new.*"):
                _remove(leftover)
            parts = [
                (self.folder / f"base-{_base_digest()}.tar", "Debian", _make_base),
                (self.qemu, "QEMU", _make_qemu),
                (self._wheels, "wheels", _make_wheels),
            ]
            parts += [
                (self.kernel(name), f"kernel {name}", functools.partial(_make_kernel, suite))
                for name, suite in KERNELS.items()
            ]
            missing = [part for part in parts if not part[0].exists()]
            if missing:
                mirror()  # known from here on: apt reads its lists for one at a time
            # Each waits for the network now and then.
            with ThreadPoolExecutor(3) as pool:
                for making in [pool.submit(self._part, *part) for part in missing]:
                    making.result()
            self._part(self.root, "root file system", self._make_root)
            wanted = {self.qemu, self.root, *map(self.kernel, KERNELS)}
            wanted |= {self.folder / f"base-{_base_digest()}.tar", self._wheels}
            for old in set(self.folder.glob("*-*")) - wanted:
                _remove(old)

    def refresh(self) -> None:
        """Forget the kernels and the root: the next build takes what the suites hold by then."""
        with self._alone():
            for old in self.folder.glob("*-*"):
                _remove(old)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _part(self, path: Path, name: str, make: object) -> None:
        if path.exists():
            return
        began = time.monotonic()
        print(f"guests: making {name}", file=sys.stderr, flush=True)
        scratch = Path(tempfile.mkdtemp(prefix="new.", dir=self.folder))
        scratch.chmod(0o755)
        new = scratch / "whole"
        make(new)
        new.rename(path)
        _remove(scratch)
        print(
            f"guests: made {name} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
        )

    def _digest(self) -> str:
        """Of all that the root file system is made of, but this project's own code, which each run brings."""
        parts = [_base_digest().encode(), (ROOT / "tools/setup").read_bytes(), _init().read_bytes()]
        parts += map(str.encode, _requirements())
        for name in KERNELS:
            release = self.kernel(name) / "release"
            parts.append(release.read_bytes() if release.exists() else b"")
        return hashlib.blake2b(b"\0".join(parts), digest_size=6).hexdigest()

    def _make_root(self, new: Path) -> None:
        tree, wheels = new.with_name("tree"), new.with_name("tree") / "wheels"
        tree.mkdir()
        base = self.folder / f"base-{_base_digest()}.tar"
        run(["tar", "-C", tree, "--numeric-owner", "-xpf", base])
        run(["cp", "-a", self._wheels, wheels])
        checkout = tree / "opt/snaplib"
        checkout.mkdir(parents=True)
        tracked = run(["git", "-C", ROOT, "ls-files", "snaplib", "bpf", "tools", "tests"]).split()
        for name in (*tracked, "pyproject.toml", "README.md", "LICENSE"):
            if (ROOT / name).exists():
                (checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, checkout / name)
        for name in ("etc/resolv.conf", "etc/hosts"):
            shutil.copy(f"/{name}", tree / name)
        for one in STALE_IS_FINE:
            with (tree / "etc/apt/apt.conf.d/90stale").open("a") as config:
                config.write(f"{one.replace('=', ' ')};\n")
        # A bare Debian, the package index a folder: what tools/setup makes of it is what users get.
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
            **{
                name: os.environ[name]
                for name in ("http_proxy", "https_proxy")
                if name in os.environ
            },
        }
        script = 'mount -t proc proc "$0/proc" && exec chroot "$0" /opt/snaplib/tools/setup'
        run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, tree], env=environment)
        run(["chroot", tree, "sh", "-c", _COMPILE], env={**environment, "SNAPLIB_GUEST": "1"})
        shutil.rmtree(wheels)
        shutil.copy(_init(), tree / "usr/sbin/guest-init")
        (tree / "usr/sbin/guest-init").chmod(0o755)
        (tree / "usr/lib/modules").mkdir(exist_ok=True)
        for name in KERNELS:
            run(["cp", "-a", f"{self.kernel(name)}/modules/.", tree / "usr/lib/modules"])
            run(["chroot", tree, "depmod", (self.kernel(name) / "release").read_text().strip()])
        for leftover in ("var/lib/apt/lists", "var/cache/apt", "root/.cache"):
            _remove(tree / leftover)
        with new.open("wb") as disk:
            disk.truncate(_DISK_BYTES)
        # Without a journal: nobody needs the disk after the guest has died.
        options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0"]
        run(["mke2fs", *options, "-E", "lazy_itable_init=0", "-d", tree, new])


def _init() -> Path:
    return Path(__file__).with_name("init.sh")


def _debian_packages() -> list[str]:
    """What tools/setup installs, by its own list."""
    text = (ROOT / "tools/setup").read_text()
    _, _, rest = text.partition("readonly DEBIAN_PACKAGES=(\n")
    lines = rest[: rest.index("\n)")].splitlines()
    return [word for line in lines for word in line.partition("#")[0].split()]


def _base_digest() -> str:
    told = [str(_RECIPE), DISTRIBUTION, *_PACKAGES, *_debian_packages()]
    return hashlib.blake2b("\0".join(told).encode(), digest_size=6).hexdigest()


def _requirements() -> list[str]:
    """What tools/setup has pip install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]

    def group(name: str) -> Iterator[str]:
        for one in groups[name]:
            if isinstance(one, str):
                yield one
            else:
                yield from group(one["include-group"])

    found = {
        *project["project"]["dependencies"],
        *group("dev"),
        *project["build-system"]["requires"],
    }
    return sorted({*found, "pip>=25.1", "editables"})


def _make_wheels(new: Path) -> None:
    """Fetch wheels for the guest's Python, by this Python's pip and how it is configured."""
    new.mkdir()
    platforms = ["manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64", "any"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", new]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON]
    command += [f"--platform={one}" for one in platforms]
    run([*command, *_requirements()])


def _make_qemu(new: Path) -> None:
    """The distribution's QEMU with its own C library, whatever this machine's are."""
    suite = Suite(DISTRIBUTION, new.with_name("apt"))
    suite.unpack(suite.closure("qemu-system-x86"), new)
    for leftover in ("doc", "locale", "man", "icons"):
        _remove(new / "usr/share" / leftover)


def _make_kernel(suite: str, new: Path) -> None:
    """A stock kernel of the cloud flavour, which mounts an NVMe disk with ext4 without an initramfs."""
    unpacked = new.with_name("unpacked")
    archive = Suite(suite, new.with_name("apt"))
    keep = r"^linux-(image|modules|binary|base)-\d\S*-cloud-amd64"
    archive.unpack(archive.closure("linux-image-cloud-amd64", keep), unpacked)
    modules = next(iter([*unpacked.glob("usr/lib/modules/*"), *unpacked.glob("lib/modules/*")]))
    image = next(iter([*unpacked.glob("boot/vmlinuz-*"), *modules.glob("vmlinuz*")]))
    new.mkdir()
    _extract_vmlinux(image, new / "vmlinux")
    for path in modules.glob("vmlinuz*"):
        path.unlink()
    # Plain modules load faster under emulation.
    packed = [*modules.rglob("*.ko.xz")]
    if packed:
        run(["xz", "-d", *packed])
    (new / "modules").mkdir()
    run(["cp", "-a", modules, new / "modules"])
    (new / "release").write_text(modules.name + "\n")


def _extract_vmlinux(image: Path, into: Path) -> None:
    """Unpack a compressed kernel, so that the guest need not do it; where that fails the image boots as well."""
    content = image.read_bytes()
    for magic, tool in _COMPRESSIONS:
        at = content.find(magic)
        while at >= 0:
            done = subprocess.run(
                [tool, "-dcq"], input=content[at:], capture_output=True, check=False
            )
            if done.stdout[:4] == b"\x7fELF":
                into.write_bytes(done.stdout)
                return
            at = content.find(magic, at + 1)
    shutil.copy(image, into)


def _make_base(new: Path) -> None:
    packages = ",".join([*_PACKAGES, *_debian_packages()])
    leave_out = [
        f"--dpkgopt=path-exclude=/usr/share/{one}/*" for one in ("man", "doc", "locale", "info")
    ]
    options = [f"--aptopt={one.replace('=', ' ')};" for one in STALE_IS_FINE] + [
        "--dpkgopt=force-unsafe-io"
    ]
    source = f"deb [signed-by={keyring()}] {mirror()} {DISTRIBUTION} main"
    run(
        [
            "mmdebstrap",
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            "--format=tar",
            *leave_out,
            *options,
            f"--include={packages}",
            DISTRIBUTION,
            str(new),
            source,
        ]
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
