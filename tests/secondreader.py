"""A second reader of stores, written from docs/store-format.md alone: it shows that the document is enough.

It knows nothing of snaplib's code, and it believes what it reads: checksums are for those that mean to use it.
"""

from __future__ import annotations

import hmac
import io
import json
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PAGE = 4096
CHUNK, NONCE, TAG = 1 << 20, 12, 16
RUN = np.dtype("<u4, <u4, <u8, <u8, <u8, <u8")
RUN.names = ("kind", "flags", "id", "at", "pages", "position")
FRAME = np.dtype("<u4, <u4, <u8, <u4, <u4, <u8")
FRAME.names = ("segment", "kind", "offset", "stored", "pages", "xxh3")


class Reader:
    """Reads a store in a folder, encrypted or not."""

    def __init__(self, folder, key=None):
        self.folder = Path(folder)
        mark = json.loads((self.folder / "snaplib-store.json").read_bytes())
        self.object_key = None
        if "encryption" in mark:
            assert (mark["format"], mark["encryption"]["cipher"]) == (2, "AES-256-GCM")
            salt = bytes.fromhex(mark["encryption"]["salt"])
            derived = HKDF(SHA256(), 96, salt, b"snaplib store 1").derive(key)
            assert derived[64:].hex() == mark["encryption"]["check"], "another key"
            self.name_key, self.object_key = derived[:32], derived[32:64]

    def key_folder(self, key):
        """The second part of the names of a key's manifests; short keys only."""
        safe = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~ +=@,:()"
        coded = "".join(chr(one) if one in safe else f"%{one:02X}" for one in key.encode()) or "%"
        coded = f"%2E{coded[1:]}" if coded[0] == "." else coded
        if self.object_key:
            return "%~" + hmac.digest(self.name_key, coded.encode(), "sha256")[:20].hex()
        return coded

    def cipher(self, name):
        return AESGCM(hmac.digest(self.object_key, name.encode(), "sha256"))

    def object(self, name):
        """The content of an object that is not a segment."""
        data = (self.folder / name).read_bytes()
        if not self.object_key:
            return data
        step, plain = NONCE + CHUNK + TAG, []
        count = (len(data) - 1) // step + 1
        for number in range(count):
            piece = data[number * step : (number + 1) * step]
            place = b"chunk" + struct.pack("<QB", number, number == count - 1)
            plain.append(self.cipher(name).decrypt(piece[:NONCE], piece[NONCE:], place))
        return b"".join(plain)

    def snapshots(self, key):
        """The manifests of a key, oldest first."""
        names = sorted(
            path.name for path in (self.folder / "manifests" / self.key_folder(key)).iterdir()
        )
        return [
            json.loads(self.object(f"manifests/{self.key_folder(key)}/{name}")) for name in names
        ]

    def segments(self, manifest):
        """The full name of each segment, in the order of their numbers."""
        if manifest["format"] > 1:
            return [f"objects/{one['owner']}/{one['name']}" for one in manifest["segments"]]
        own = sorted(name for name in manifest["objects"] if name.startswith("segment-"))
        return [f"objects/{manifest['id']}/{name}" for name in own]

    def stream(self, manifest, parts):
        """Objects, one behind the other; borrowed ones as OWNER/NAME."""
        return b"".join(
            self.object(f"objects/{part if '/' in part else manifest['id'] + '/' + part}")
            for part in parts
        )

    def images(self, manifest):
        """The files among CRIU's images, by name."""
        plain = zstd.decompress(self.object(f"objects/{manifest['id']}/images"))
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            return {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}

    def index(self, manifest):
        """The runs and the frames."""
        data = self.object(f"objects/{manifest['id']}/index")
        assert data[:16] == b"snapidx\n" + struct.pack("<II", 1, PAGE)
        runs, frames, kind, size = struct.unpack_from("<QQQQ", data, 16)
        body = data[64 : 64 + size]
        body = zstd.decompress(body) if kind else body
        return np.frombuffer(body, RUN, runs), np.frombuffer(
            body, FRAME, frames, runs * RUN.itemsize
        )

    def frame(self, manifest, frame):
        """The bytes of a frame."""
        size, offset = int(frame["stored"]), int(frame["offset"])
        if frame["kind"] == 2:
            return bytes(int(frame["pages"]) * PAGE)
        name = self.segments(manifest)[frame["segment"]]
        with (self.folder / name).open("rb") as segment:
            segment.seek(offset)
            stored = segment.read(size + (NONCE + TAG if self.object_key else 0))
        if self.object_key:
            place = b"frame" + struct.pack("<Q", offset)
            stored = self.cipher(name).decrypt(stored[:NONCE], stored[NONCE:], place)
        return zstd.decompress(stored) if frame["kind"] == 1 else stored

    def memory(self, manifest):
        """Every page of a snapshot: its bytes by kind and id of its space and its address."""
        runs, frames = self.index(manifest)
        sequence = b"".join(self.frame(manifest, frame) for frame in frames)
        return {
            (int(run["kind"]), int(run["id"]), int(run["at"]) + page * PAGE): sequence[
                begin : begin + PAGE
            ]
            for run in runs
            for page in range(int(run["pages"]))
            for begin in [(int(run["position"]) + page) * PAGE]
        }

    def digests(self, manifest):
        """Where in the sequence blocks are whose content is known, and their digests; none if it has no such object."""
        if "blocks" not in manifest["objects"]:
            return []
        data = self.object(f"objects/{manifest['id']}/blocks")
        assert data[:16] == b"snapblk\n" + struct.pack("<II", 1, 16)
        (count,) = struct.unpack_from("<Q", data, 16)
        return [
            (*struct.unpack_from("<Q", data, at), data[at + 8 : at + 32])
            for at in range(24, 24 + 32 * count, 32)
        ]
