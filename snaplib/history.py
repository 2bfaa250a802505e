"""The dumps that were made: one JSON object a line in a file of ours, and what is forecast from them.

The file is ``history.jsonl`` in `snaplib.runtime.state_dir`, 0600: it names programs and stores. It can be
read, cut and deleted with any tool; lines that are no records are passed over.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import attrs

from snaplib.arguments import has
from snaplib.errors import SnaplibError, UsageError, WrongType
from snaplib.forecasting import CompressionSample, DumpRecord, Forecast, Models, forecast_with
from snaplib.runtime import state_dir

if TYPE_CHECKING:
    from snaplib.host import Host
    from snaplib.observe import Profile
    from snaplib.store import Store

__all__ = ["History", "forecast", "host_identity", "models_for", "store_identity"]

#: The file is halved when it has grown beyond this: some 4000 dumps.
_MOST_BYTES = 4 << 20
_GIB = 1 << 30


def host_identity(host: Host | None = None) -> str:
    """Return what hosts have in common on which dumps take the same time.

    It is the kind of machine and not its name: a fleet of equal ones learns together.

    Args:
        host: The host; this one by default.
    """
    if host is not None:
        arch, cpus, memory_bytes = host.arch, host.cpus, host.memory_bytes
    else:
        arch, cpus = platform.machine(), len(os.sched_getaffinity(0))
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{arch}, {cpus} CPUs, {round(memory_bytes / _GIB)} GiB, {_processor()}"


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(("model name", "Processor", "CPU implementer")):
                return line.split(":", 1)[-1].strip()
    return platform.processor() or "unknown CPU"


def store_identity(store: Store | str) -> str:
    """Return what stores have in common that take the same time: a file system, a bucket.

    Args:
        store: The store, or its address.

    Raises:
        WrongType: It is neither.
    """
    url = store if isinstance(store, str) else getattr(store, "url", None)
    if not isinstance(url, str):
        raise WrongType(f"store is {store!r}, and must be a snaplib.Store, or its address")
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    path = Path(unquote(parts.path)).absolute() if parts.scheme else Path(url).absolute()
    while not path.is_mount() and path.parent != path:
        path = path.parent
    return f"file:{path}"


class History:
    """The file of dumps.

    Args:
        path: The file; the user's own by default. It need not exist.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else state_dir() / "history.jsonl"

    def records(self) -> list[DumpRecord]:
        """Return the dumps in the order in which they were noted; none where there is no file.

        Raises:
            UsageError: The file is there and cannot be read.
        """
        return list(self._read())

    def append(self, *records: DumpRecord) -> None:
        """Note dumps; many processes may do so at once.

        Raises:
            UsageError: The file cannot be written.
        """
        lines = "".join(
            json.dumps(record.to_json(), separators=(",", ":")) + "\n" for record in records
        )
        try:
            with self._locked() as descriptor:
                if os.fstat(descriptor).st_size > _MOST_BYTES:
                    self._halve(descriptor)
                os.write(descriptor, lines.encode())
        except OSError as error:
            raise UsageError(
                f"the history of dumps {self.path} cannot be written: {error.strerror}",
                hint="name another folder in $SNAPLIB_STATE_DIR",
            ) from error

    def forget(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> Iterator[DumpRecord]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(
                f"the history of dumps {self.path} cannot be read: {error.strerror}"
            ) from error
        for line in text.splitlines():
            # A line that was cut off, or is of another version, is no reason to know nothing.
            with contextlib.suppress(ValueError):
                data = json.loads(line)
                if isinstance(data, dict):
                    yield DumpRecord.from_json(data)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _halve(self, descriptor: int) -> None:
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        middle = content.find(b"\n", len(content) // 2) + 1
        os.ftruncate(descriptor, 0)
        os.write(descriptor, content[middle:])


#: What was learned last: (file, its size and time, host, store) -> models. Learning takes some 50 ms.
_learned: dict[tuple[object, ...], Models] = {}


def models_for(
    host: Host | None = None, store: Store | str | None = None, history: History | None = None
) -> Models:
    """Return what is known of dumps on a host to a store.

    A history that cannot be read counts as none, and a note of the models says so.

    Args:
        host: The host; this one by default.
        store: The store, or its address; the default's file system if it is not known.
        history: Where dumps are noted; the user's own by default.
    """
    host_name = host_identity(host)
    store_name = store_identity(".snaplib" if store is None else store)
    try:
        history = History() if history is None else history
        found = history.path.stat()
        key = (history.path, found.st_size, found.st_mtime_ns, host_name, store_name)
        if key not in _learned:
            _learned.clear()
            _learned[key] = Models.learn(history.records(), host=host_name, store=store_name)
        return _learned[key]
    except FileNotFoundError:
        return Models.learn((), host=host_name, store=store_name)
    except (SnaplibError, OSError) as error:
        nothing = Models.learn((), host=host_name, store=store_name)
        return attrs.evolve(nothing, notes=(*nothing.notes, str(error)))


def forecast(
    profile: Profile,
    *,
    host: Host | None = None,
    store: Store | str | None = None,
    window_s: float = 120.0,
    bandwidth_bytes_s: float | None = None,
    sample: CompressionSample | None = None,
    warm_age_s: float | None = None,
    warm_dirty_bytes: float | None = None,
    models: Models | None = None,
) -> Forecast:
    """Forecast how large a dump of a task will be, how long it takes, and whether it fits the window.

    Args:
        profile: What a watch knows of the task.
        host: The host; this one by default.
        store: The store, or its address; a folder in the working directory by default.
        window_s: Seconds from the notice to the end of the machine.
        bandwidth_bytes_s: Of the way to the store, if another than was measured is to be supposed.
        sample: How well the task's memory compresses.
        warm_age_s: How old the warm copy is that a delta can build on; None without one.
        warm_dirty_bytes: What that copy misses now, where it has been counted.
        models: What is known of dumps; learned from the history by default.

    Raises:
        UsageError: A number is none, or negative.
    """
    if profile is None:
        raise WrongType("profile is None", hint="take watch.profile()")
    has("profile", profile, "page_ages", "Profile")
    has("host", host, "memory_bytes", "Host")
    has("sample", sample, "codec_bytes_s", "forecasting.CompressionSample")
    has("models", models, "durations", "forecasting.Models")
    return forecast_with(
        models_for(host, store) if models is None else models,
        profile,
        window_s=window_s,
        bandwidth_bytes_s=bandwidth_bytes_s,
        sample=sample,
        warm_age_s=warm_age_s,
        warm_dirty_bytes=warm_dirty_bytes,
    )
