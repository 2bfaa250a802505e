"""A folder of small files, such as CRIU's images, as one object: a tar archive in a zstd frame.

Names, modes and contents are kept.  Owners and times are not: they say nothing about the task, and
without them the same files always give the same bytes.
"""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from snaplib.store.codec import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["pack", "unpack"]

_LEVEL = 1


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
        source: The archive.
        folder: The folder, which must exist; None only checks.

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
                if folder is not None:
                    archive.extract(member, folder, filter="tar")
                elif member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None
                    while content.read(1 << 20):
                        pass
    except (tarfile.TarError, zstd.ZstdError, EOFError) as error:
        raise ValueError(str(error)) from error
    return count
