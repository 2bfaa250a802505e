"""The bpf(2) system call: its commands and their arguments, one function each.

Layouts and numbers are those of include/uapi/linux/bpf.h. A command that fails raises ``OSError`` with
the call's name. There is no library between: what is needed of libbpf is less than its ABI.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from snaplib.kernel.syscalls import syscall

__all__ = [
    "MAP_ARRAY",
    "MAP_HASH",
    "MAP_PERCPU_ARRAY",
    "MAP_PERCPU_HASH",
    "MAP_RINGBUF",
    "PROGRAM_RAW_TRACEPOINT",
    "PROGRAM_TRACING",
    "map_create",
    "map_delete",
    "map_lookup",
    "map_lookup_batch",
    "map_update",
    "open_iterator",
    "program_load",
    "program_misses",
    "raw_tracepoint_open",
]

# enum bpf_cmd
_NOEXIST = 1  # BPF_NOEXIST

_MAP_CREATE = 0
_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_PROG_LOAD = 5
_OBJ_GET_INFO_BY_FD = 15
_RAW_TRACEPOINT_OPEN = 17
_MAP_LOOKUP_BATCH = 24
_LINK_CREATE = 28
_ITER_CREATE = 33

# enum bpf_map_type
MAP_HASH = 1
MAP_ARRAY = 2
MAP_PERCPU_HASH = 5
MAP_PERCPU_ARRAY = 6
MAP_RINGBUF = 27

# enum bpf_prog_type
PROGRAM_RAW_TRACEPOINT = 17
PROGRAM_TRACING = 26

_TRACE_ITER = 28  # enum bpf_attach_type

#: The kernel takes any longer union than it knows, if what it does not know is zero.
_ATTR_BYTES = 160
#: So many entries are read at once; the first batch is smaller, for most maps are.
_MAX_BATCH = 4096
_LOG_BYTES = 1 << 16


def _bpf(command: int, attributes: bytes) -> int:
    return _bpf_out(command, attributes)[0]


def _bpf_out(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Make the call; return its result and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(attributes, _ATTR_BYTES)
    return syscall("bpf", command, buffer, _ATTR_BYTES), buffer.raw


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def map_create(
    kind: int, key_bytes: int, value_bytes: int, entries: int, *, flags: int, name: str
) -> int:
    """Create a map and return its descriptor (close-on-exec)."""
    attributes = struct.pack(
        "<7I16s", kind, key_bytes, value_bytes, entries, flags, 0, 0, name.encode()[:15]
    )
    return _bpf(_MAP_CREATE, attributes)


def map_lookup(descriptor: int, key: bytes, value_bytes: int) -> bytes | None:
    """Return a value, of all CPUs where the map is per CPU; None when the key is not there."""
    keys = ctypes.create_string_buffer(key, len(key))
    values = ctypes.create_string_buffer(value_bytes)
    try:
        _bpf(
            _MAP_LOOKUP_ELEM,
            struct.pack("<IIQQQ", descriptor, 0, _address(keys), _address(values), 0),
        )
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return values.raw


def map_update(descriptor: int, key: bytes, value: bytes, *, only_new: bool = False) -> None:
    """Set a value, of all CPUs where the map is per CPU; if asked for, only where none is."""
    keys = ctypes.create_string_buffer(key, len(key))
    values = ctypes.create_string_buffer(value, len(value))
    _bpf(
        _MAP_UPDATE_ELEM,
        struct.pack("<IIQQQ", descriptor, 0, _address(keys), _address(values), _NOEXIST * only_new),
    )


def map_delete(descriptor: int, key: bytes) -> bool:
    """Take a key out; return whether it was there."""
    keys = ctypes.create_string_buffer(key, len(key))
    try:
        _bpf(_MAP_DELETE_ELEM, struct.pack("<IIQQQ", descriptor, 0, _address(keys), 0, 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def map_lookup_batch(
    descriptor: int, key_bytes: int, value_bytes: int, at_once: int = 64
) -> tuple[bytes, bytes]:
    """Return all keys and all values of a hash map, one after the other.

    Linux commit cb4d03ab499d (in v5.6); for maps per CPU commit f008d732ab18 as well.
    """
    all_keys, all_values = [], []
    # The position in the map is opaque: 4 bytes for a hash, but give it room.
    position = ctypes.create_string_buffer(max(8, key_bytes))
    following = ctypes.create_string_buffer(max(8, key_bytes))
    first = True
    while True:
        keys = ctypes.create_string_buffer(key_bytes * at_once)
        values = ctypes.create_string_buffer(value_bytes * at_once)
        attributes = struct.pack(
            "<QQQQIIQQ",
            0 if first else _address(position),
            _address(following),
            _address(keys),
            _address(values),
            at_once,
            descriptor,
            0,
            0,
        )
        buffer = ctypes.create_string_buffer(attributes, _ATTR_BYTES)
        last = False
        try:
            syscall("bpf", _MAP_LOOKUP_BATCH, buffer, _ATTR_BYTES)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # one hash bucket holds more than that
                at_once *= 2
                continue
            if error.errno != errno.ENOENT:
                raise
            last = True
        (count,) = struct.unpack_from("<I", buffer, 32)
        all_keys.append(keys.raw[: count * key_bytes])
        all_values.append(values.raw[: count * value_bytes])
        if last:
            return b"".join(all_keys), b"".join(all_values)
        position.raw = following.raw
        first = False
        at_once = min(at_once * 2, _MAX_BATCH)


def program_load(kind: int, instructions: bytes, name: str, *, attach_btf_id: int = 0) -> int:
    """Load a program and return its descriptor (close-on-exec).

    Args:
        kind: ``PROGRAM_*``.
        instructions: Of 8 bytes each, with the descriptors of maps filled in.
        name: At most 15 letters, digits and underscores.
        attach_btf_id: For ``PROGRAM_TRACING``: the iterator's function.

    Raises:
        OSError: The verifier refused it; the last line of its log is in the message.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")  # some helpers are for such programs only

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        attributes = struct.pack(
            "<IIQQIIQII16sIIIIQIIQII",
            kind,
            len(instructions) // 8,
            _address(code),
            _address(licence),
            0 if log is None else 1,
            0 if log is None else len(log),
            0 if log is None else _address(log),
            0,
            0,
            name.encode()[:15],
            0,
            _TRACE_ITER if kind == PROGRAM_TRACING else 0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            attach_btf_id,
        )
        return _bpf(_PROG_LOAD, attributes)

    try:
        return attempt(None)
    except OSError as first:
        if first.errno == errno.EPERM:
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return attempt(log)
        except OSError as error:
            said = [line for line in log.value.decode(errors="replace").splitlines() if line]
            # The last lines are statistics; the one before them says what is wrong.
            why = next((line for line in reversed(said) if not line.startswith(_CHATTER)), "")
            raise OSError(
                error.errno, f"bpf: program {name}: {os.strerror(error.errno or 0)}: {why}"
            ) from None


_CHATTER = ("processed ", "verification time", "stack depth")


def raw_tracepoint_open(descriptor: int, name: str) -> int:
    """Attach a program to a raw tracepoint; it stays for as long as the descriptor returned is open."""
    text = ctypes.create_string_buffer(name.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QII", _address(text), descriptor, 0))


def open_iterator(descriptor: int, *, pid: int = 0) -> int:
    """Begin a run of an iterator program.

    Args:
        descriptor: Of the program.
        pid: Only this process, in our PID namespace; 0 for all.

    Returns:
        A descriptor: reading it to its end runs the program, and gives what it writes, no more than eight
        pages at a time.

    Raises:
        OSError: EINVAL or E2BIG where iterators of one process are not known (Linux commit f0d74c4da1f0,
            in v6.1).
    """
    # union bpf_iter_link_info, its member `task`: tid, pid, pid_fd.
    info = ctypes.create_string_buffer(struct.pack("<III", 0, pid, 0), 16)
    attributes = struct.pack(
        "<IIIIQI", descriptor, 0, _TRACE_ITER, 0, _address(info) if pid else 0, 12 if pid else 0
    )
    link = _bpf(_LINK_CREATE, attributes)
    try:
        return _bpf(_ITER_CREATE, struct.pack("<II", link, 0))
    finally:
        os.close(link)


def program_misses(descriptor: int) -> int:
    """Return how often a program could not run because it was running already on that CPU.

    Linux commit 9ed9e9ba2337 (in v5.12): bpf_prog_info.recursion_misses.
    """
    info = ctypes.create_string_buffer(256)
    _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", descriptor, len(info), _address(info)))
    misses: int = struct.unpack_from("<Q", info, 208)[0]
    return misses
