"""A folder of small files, such as CRIU's images, as one object: a tar archive in a zstd frame.

Names, modes and contents are kept.  Owners and times are not: they say nothing about the task, and
without them the same files always give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from snaplib.store.codec import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["pack", "unpack"]

_LEVEL = 1
_PIECE_BYTES = 1 << 20


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


def unpack(source: IO[bytes], folder: Path | None) -> int:
    """Read an archive and write its files into a folder.

    Args:
        source: The archive; read to its end.
        folder: The folder, which must exist and be empty; None only reads.

    Returns:
        How many members there were.

    Raises:
        ValueError: It is no archive, or a damaged one, or would write outside of the folder.
    """
    count = 0
    try:
        with (
            zstd.ZstdFile(source) as compressed,
            tarfile.open(fileobj=compressed, mode="r|") as archive,
        ):
            for member in archive:
                count += 1
                _unpack_one(archive, member, folder)
        while source.read(_PIECE_BYTES):
            pass
    except (tarfile.TarError, zstd.ZstdError, EOFError, FileExistsError) as error:
        raise ValueError(str(error)) from error
    return count


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path | None) -> None:
    # Our own, as the filters of tarfile are younger (3.11.4) than the oldest Python we run on.
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"the archive has a file outside of it: {member.name}")
    path = None if folder is None else folder / name
    if folder is not None and any((folder / above).is_symlink() for above in name.parents):
        raise ValueError(f"the archive has a file behind a symbolic link: {member.name}")
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
    elif member.issym():
        path.symlink_to(member.linkname)
    else:
        raise ValueError(f"the archive has a member of unknown kind: {member.name}")
