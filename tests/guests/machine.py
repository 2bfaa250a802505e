"""One guest: a QEMU, the job it is given, what it says, and how it ended.

Emulated on purpose, also where ``/dev/kvm`` exists: nested KVM that starts and then fails is common, and a guest that
works everywhere is worth more than a quick one.  ``accelerator="kvm"`` is for who knows that theirs works.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import attrs

from tests.guests.image import ROOT, Image

_PROCESSORS = {"tcg,tb-size=512": "max", "kvm": "host"}

#: No cmpxchg16b in the kernel, X86_FEATURE_CX16: after that instruction as QEMU emulates it, up to 10 at least, EFLAGS
#: hold garbage; an interrupt right then is a double fault, and the allocator uses it all the time.  The CPU keeps it:
#: without it, it would be no x86-64-v2, which compiled Python packages ask for.
_WITHOUT_CX16 = "clearcpuid=141"

#: What the emulator does to a healthy kernel: see above; and a patched instruction that runs in its stale translation.
_EMULATOR_FAULTS = ("double fault", "Oops: int3")

#: A guest that is up says so every 2 s. One that is silent for that long does not run any more.
_SILENCE_S = 90.0
_BOOT_S = 180.0

_KERNEL_OPTIONS = (
    *("console=ttyS0", "root=/dev/nvme0n1", "rootfstype=ext4", "rw", "rootwait", "quiet"),
    *("init=/usr/sbin/guest-init", "panic=-1", "oops=panic", "mitigations=off", "nokaslr"),
    *("random.trust_cpu=on", "net.ifnames=0", _WITHOUT_CX16),
)


class End(enum.Enum):
    """How a guest ended."""

    DONE = "the command ended"
    LATE = "time limit"
    DIED = "the guest died"
    EMULATOR = "the emulator failed"


@attrs.frozen
class Job:
    """What a guest is to do.

    Attributes:
        command: Run in the checkout's copy, as root, with its ``.venv/bin`` first on PATH.
        environment: For it.
        folders: Put into the guest: name under ``/in`` -> folder here.
        timeout_s: After that the guest is ended.
        memory_mib: The guest's memory.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = attrs.field(factory=dict)
    folders: Mapping[str, Path] = attrs.field(factory=dict)
    timeout_s: float = 600.0
    memory_mib: int = 1536


@attrs.frozen
class Outcome:
    """How it went.

    Attributes:
        end: How the guest ended.
        status: Of the command; 124 for the time limit, 125 for a guest that died.
        duration_s: From the start of QEMU.
        output: All that the command printed.
        console: What the kernel said.
    """

    end: End
    status: int
    duration_s: float
    output: str
    console: str


@attrs.frozen
class Cable:
    """A network of two guests: a unix socket.

    Attributes:
        socket: Its path.
        server: Whether this guest is the one that listens; it is started first.
        address: Of this guest, such as ``10.77.0.1/24``.
        mac: Of its card.
    """

    socket: Path
    server: bool
    address: str
    mac: str

    def options(self) -> list[str]:
        """For QEMU."""
        end = f"stream,id=cable,server={'on' if self.server else 'off'}"
        return [
            *("-netdev", f"{end},addr.type=unix,addr.path={self.socket}"),
            *("-device", f"virtio-net-pci,netdev=cable,mac={self.mac}"),
        ]


class Machine:
    """A running guest.

    Args:
        image: What it is made of.
        kernel: Name of one of `image.KERNELS`.
        job: What it does.
        name: Its host name, and what its lines begin with if it is not alone.
        cable: Its network, if it has one.
        accelerator: ``tcg`` or ``kvm``.
        show: Called with what the command prints.
    """

    def __init__(
        self,
        image: Image,
        kernel: str,
        job: Job,
        *,
        name: str = "guest",
        cable: Cable | None = None,
        accelerator: str = "tcg",
        show: Callable[[bytes], None] | None = None,
    ) -> None:
        self.name = name
        self._job = job
        self._show = show or _to_stdout
        self._folder = Path(tempfile.mkdtemp(prefix=f"snaplib-{name}."))
        self._output = bytearray()
        self._said: list[str] = []
        self._heard_at = self._began = time.monotonic()
        self._threads: list[threading.Thread] = []
        _write_job(job, self._folder / "job.tar")
        with (self._folder / "out.tar").open("wb") as out:
            out.truncate(2 << 30)
        ports = {"output": self._on_output, "status": self._on_status}
        ends = {port: os.pipe() for port in ports}
        accelerator = "tcg,tb-size=512" if accelerator == "tcg" else accelerator
        words = [f"guest.name={name}", f"guest.now={int(time.time())}"]
        if cable:
            words.append(f"guest.address={cable.address}")
        command = [
            *_qemu(image.qemu),
            *("-accel", accelerator, "-machine", "q35", "-cpu", _PROCESSORS[accelerator]),
            *("-smp", "1", "-m", str(job.memory_mib)),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *("-kernel", str(image.kernel(kernel) / "vmlinux")),
            *("-append", " ".join([*_KERNEL_OPTIONS, *words])),
            *("-serial", f"file:{self._folder / 'console'}"),
            *("-drive", f"file={image.root},if=none,id=root,format=raw,snapshot=on,cache=unsafe"),
            *("-device", "nvme,drive=root,serial=root"),
            *_disk("job", self._folder / "job.tar", "readonly=on"),
            *_disk("out", self._folder / "out.tar", "cache=unsafe"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci,id=ports"),
        ]
        for number, port in enumerate(ports, 1):
            command += [
                *("-add-fd", f"fd={ends[port][1]},set={number}"),
                *("-chardev", f"file,id={port},path=/dev/fdset/{number},append=on"),
                *("-device", f"virtserialport,bus=ports.0,nr={number},chardev={port},name={port}"),
            ]
        self._process = subprocess.Popen(
            [*command, *(cable.options() if cable else [])],
            stdin=subprocess.DEVNULL,
            pass_fds=[write_end for _, write_end in ends.values()],
        )
        for port, hear in ports.items():
            read_end, write_end = ends[port]
            os.close(write_end)
            thread = threading.Thread(target=_pump, args=(read_end, hear), daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def running(self) -> bool:
        """Whether QEMU runs."""
        return self._process.poll() is None

    def wait(self) -> Outcome:
        """Wait for the guest to end, or end it when it is late or silent."""
        limit = self._began + self._job.timeout_s
        late = silent = False
        while self.running and not (late or silent):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
            now = time.monotonic()
            late = now > limit
            silent = now - self._heard_at > (_SILENCE_S if self._said else _BOOT_S)
        if self.running:
            self.end()
        for thread in self._threads:
            thread.join(10)
        console = self.console()
        exits = [line for line in self._said if line.startswith("exit ")]
        if exits:
            end, status = End.DONE, int(exits[0].split()[1])
        elif silent or any(fault in console for fault in _EMULATOR_FAULTS):
            end, status = End.EMULATOR, 125
        elif late:
            end, status = End.LATE, 124
        else:
            # Whether it never came up or fell over later: the console tells, and it may well be our doing.
            end, status = End.DIED, 125
        output = self._output.decode(errors="replace")
        return Outcome(end, status, time.monotonic() - self._began, output, console)

    def collect(self, into: Path) -> None:
        """Take what the command left in ``/out``."""
        into.mkdir(parents=True, exist_ok=True)
        with tarfile.open(self._folder / "out.tar") as archive:
            # Known to Python's later patch releases only, of 3.11 as well.
            safely = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
            archive.extractall(into, **safely)

    def console(self) -> str:
        """What the kernel said so far."""
        with contextlib.suppress(OSError):
            return (self._folder / "console").read_text(errors="replace")
        return ""

    def end(self) -> None:
        """End it at once, as if its power had been cut."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _on_output(self, content: bytes) -> None:
        self._heard_at = time.monotonic()
        self._output += content
        self._show(content)

    def _on_status(self, content: bytes) -> None:
        self._heard_at = time.monotonic()
        self._said += content.decode(errors="replace").splitlines()


def _qemu(prefix: Path) -> list[str]:
    libraries = ":".join(str(one) for one in prefix.glob("usr/lib/x86_64-linux-gnu"))
    return [
        *(str(prefix / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries),
        str(prefix / "usr/bin/qemu-system-x86_64"),
        *("-L", str(prefix / "usr/share/qemu"), "-L", str(prefix / "usr/share/seabios")),
    ]


def _disk(name: str, path: Path, option: str) -> tuple[str, ...]:
    drive = f"file={path},if=none,id={name},format=raw,{option}"
    return ("-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}")


def _write_job(job: Job, path: Path) -> None:
    environment = {
        "PYTHONUNBUFFERED": "1",
        "SNAPLIB_GUEST": "1",
        **job.environment,
    }
    lines = [
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        "export PATH=/opt/snaplib/.venv/bin:$PATH",
        # By a pipe: the port is a device, which no task that inherits it could be saved with.  What the command leaves
        # running may hold the pipe, and is not waited for.
        "exec 4>&1 > >(exec cat >&4) 2>&1",
        "pump=$!",
        shlex.join(job.command),
        "status=$?",
        "exec >&4 2>&1",
        "for _ in {1..30}; do kill -0 $pump 2>/dev/null && sleep 0.1; done",
        "exit $status",
    ]
    listed = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        content = "\n".join([*lines, ""]).encode()
        script = tarfile.TarInfo("job/run")
        script.size, script.mode, script.mtime = len(content), 0o755, int(time.time())
        archive.addfile(script, io.BytesIO(content))
        for name in filter(None, names):
            if (ROOT / name).exists():
                archive.add(ROOT / name, f"opt/snaplib/{name}", filter=_of_root)
        for name, folder in job.folders.items():
            archive.add(folder, f"in/{name}", filter=_of_root)
    with path.open("ab") as file:
        file.write(bytes(-file.tell() % 4096))  # a disk of whole sectors


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _pump(descriptor: int, hear: Callable[[bytes], None]) -> None:
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while content := file.read(65536):
            hear(content)


def _to_stdout(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
