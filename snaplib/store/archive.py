"""A folder of small files, such as CRIU's images, as one object: a tar archive in a zstd frame.

Names, modes and contents are kept.  Owners and times are not: they say nothing about the task, and
without them the same files always give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Self

from snaplib.store.codec import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_BYTES", "ArchiveTooLarge", "pack", "unpack"]

#: More than the images of any task, whose memory is elsewhere: deleted files are the largest of them.
MOST_BYTES = 1 << 40

_LEVEL = 1
_PIECE_BYTES = 1 << 20
_MOST_MEMBERS = 1 << 17

#: What `pack` writes, and the headers before it that hold long names and large numbers.
_HEADERS = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, *_HEADERS)
_HEADER_BYTES = 1 << 16


def pack(
    folder: Path, output: IO[bytes], exclude: Callable[[PurePosixPath], bool] | None = None
) -> None:
    """Write a folder's files, folders and symbolic links as an archive.

    Args:
        folder: The folder.
        output: Where to write.
        exclude: Whether to leave a path out, given it relative to the folder.
    """
    with (
        zstd.ZstdFile(output, "w", level=_LEVEL) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if exclude is not None and exclude(PurePosixPath(name)):
                continue
            member = archive.gettarinfo(path, str(name))
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = 0
            if member.isfile():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            elif member.isdir() or member.issym():
                archive.addfile(member)


class ArchiveTooLarge(ValueError):
    """An archive that unpacks to more than there is room for."""


def unpack(source: IO[bytes], folder: Path | None, most_bytes: int = MOST_BYTES) -> int:
    """Read an archive and write its files into a folder.

    Args:
        source: The archive; read to its end.
        folder: The folder, which must exist and be empty; None only reads.
        most_bytes: How many bytes its files may have together.

    Returns:
        How many members there were.

    Raises:
        ArchiveTooLarge: It has more than that; nothing beyond was written.
        ValueError: It is no archive, or a damaged one, or would write outside of the folder.
    """
    count = 0
    left_bytes = most_bytes
    try:
        with (
            zstd.ZstdFile(source) as compressed,
            tarfile.open(fileobj=compressed, mode="r|", tarinfo=_Member) as archive,
        ):
            for member in archive:
                count += 1
                # What a header says is written or left out in full, so that it need not be counted again.
                left_bytes -= member.size
                if left_bytes < 0 or count > _MOST_MEMBERS:
                    raise ArchiveTooLarge(
                        f"the archive has more than {most_bytes} bytes or {_MOST_MEMBERS} files"
                    )
                _unpack_one(archive, member, folder)
        while source.read(_PIECE_BYTES):
            pass
    except (tarfile.TarError, zstd.ZstdError, EOFError, FileExistsError) as error:
        raise ValueError(str(error)) from error
    return count


class _Member(tarfile.TarInfo):
    """A member whose header is no larger than headers are: tarfile reads long names into memory as they come."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the member of a header."""
        member = super().frombuf(buf, encoding, errors)
        if member.type not in _KINDS or (member.type in _HEADERS and member.size > _HEADER_BYTES):
            raise ValueError(f"the archive has a member of unknown kind or size: {member.name!r}")
        return member


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path | None) -> None:
    # Our own, as the filters of tarfile are younger (3.11.4) than the oldest Python we run on.
    name = PurePosixPath(member.name)
    if _leads_out(name):
        raise ValueError(f"the archive has a file outside of it: {member.name}")
    path = None if folder is None else folder / name
    # The folder itself may be reached through a link: it is the caller's.
    if folder is not None and any(
        (folder / above).is_symlink() for above in list(name.parents)[:-1]
    ):
        raise ValueError(f"the archive has a file behind a symbolic link: {member.name}")
    if member.issym() and _leads_out(PurePosixPath(member.linkname)):
        raise ValueError(f"the archive has a link that leads out of it: {member.name}")
    if member.isfile():
        content = archive.extractfile(member)
        assert content is not None
        if path is None:
            while content.read(_PIECE_BYTES):
                pass
            return
        # Exclusively: never through a symbolic link that came before.
        with path.open("xb") as file:
            os.fchmod(file.fileno(), member.mode & 0o777)
            shutil.copyfileobj(content, file, _PIECE_BYTES)
    elif path is None:
        return
    elif member.isdir():
        path.mkdir(member.mode & 0o777 | 0o700)
    else:
        path.symlink_to(member.linkname)


def _leads_out(name: PurePosixPath) -> bool:
    return name.is_absolute() or ".." in name.parts
