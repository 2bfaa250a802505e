"""Packages of any Debian suite, from the mirror that this machine's apt uses, without touching its apt."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from pathlib import Path

KEYRINGS = tuple(
    Path(f"/usr/share/keyrings/debian-archive-keyring.{end}") for end in ("pgp", "gpg")
)

#: Mirrors that keep a suite as it was on one day serve Release files that have expired since. The signature is still
#: verified: all that is given up is to notice that somebody withholds a newer version.
STALE_IS_FINE = ("Acquire::Check-Valid-Until=false", "Acquire::Check-Date=false")

_TARGETS = "$(CREATED_BY)|$(LABEL)|$(COMPONENT)|$(REPO_URI)"


class BuildError(Exception):
    """A guest cannot be made here; the text says why and what to do."""


def run(command: list[str | Path], **options: object) -> str:
    """Run a command and return what it prints; a failure shows the end of that."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        raise BuildError(f"{' '.join(map(str, command))}: status {done.returncode}\n{tail}")
    return done.stdout


@functools.cache
def mirror() -> str:
    """The URI of the Debian archive that apt is configured for."""
    for _ in range(2):
        for line in run(["apt-get", "indextargets", "--format", _TARGETS]).splitlines():
            created_by, label, component, uri = line.split("|", 3)
            if (created_by, label, component) == ("Packages", "Debian", "main"):
                return uri
        run(
            ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "update"]
        )  # a bare image has no lists
    raise BuildError("apt is configured for no Debian archive: add one with main to /etc/apt")


def keyring() -> Path:
    """What signatures of the archive are verified with."""
    for path in KEYRINGS:
        if path.exists():
            return path
    raise BuildError("no keyring of the Debian archive: apt-get install debian-archive-keyring")


class Suite:
    """A suite with lists and an empty dpkg status of its own, so that whole closures are resolved.

    Args:
        name: Such as ``trixie``.
        folder: Where its lists and packages go.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._packages = folder / "archives"
        self._config = folder / "apt.conf"
        for part in ("state/lists/partial", "archives/partial"):
            (folder / part).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(
            f"deb [signed-by={keyring()}] {mirror()} {name} main\n"
        )
        stale = "".join(f"{one.replace('=', ' ')};\n" for one in STALE_IS_FINE)
        self._config.write_text(
            f'Dir::State "{folder}/state";\n'
            f'Dir::State::status "{folder}/status";\n'
            f'Dir::Cache "{folder}";\n'
            f'Dir::Etc::SourceList "{folder}/sources.list";\n'
            'Dir::Etc::SourceParts "/dev/null";\n'
            'Dir::Etc::Preferences "/dev/null";\n'
            'Dir::Etc::PreferencesParts "/dev/null";\n'
            'APT::Install-Recommends "false";\n'
            'APT::Sandbox::User "root";\n'
            'Acquire::Languages "none";\n'
            'Acquire::Retries "3";\n' + stale
        )
        self._apt("update", "--error-on=any")

    def closure(self, package: str, keep: str = "") -> list[str]:
        """A package and what it depends on, as ``name=version``; only those whose names match `keep`."""
        found = re.findall(
            r"^Inst (\S+) \((\S+)", self._apt("--simulate", "install", package), re.M
        )
        return [f"{name}={version}" for name, version in found if re.search(keep, name)]

    def unpack(self, packages: list[str], into: Path) -> None:
        """Download packages and unpack them into a folder."""
        self._apt("download", *packages, cwd=self._packages)
        for package in sorted(self._packages.glob("*.deb")):
            run(["dpkg-deb", "-x", package, into])
            package.unlink()

    def _apt(self, *words: str, **options: object) -> str:
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "APT_CONFIG": str(self._config)}
        return run(["apt-get", "-q", *words], env=environment, **options)
