"""What this machine is, by what its firmware and its environment say: nothing is asked over a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["detect"]

#: Every Azure machine's chassis has it (Azure: "Identify Azure VMs").
_AZURE_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"
#: A variable that is there wherever the scheduler has started us.
_SCHEDULERS = {
    "slurm": "SLURM_JOB_ID",
    "htcondor": "_CONDOR_JOB_AD",
    "kubernetes": "KUBERNETES_SERVICE_HOST",
}


def detect(sys: Path = Path("/sys"), environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of the sources that this machine has, without ``signal``.

    Args:
        sys: Where sysfs is.
        environment: The environment; ours by default.
    """
    found = []
    vendor, product = _dmi(sys, "sys_vendor"), _dmi(sys, "product_name")
    # Xen machines of before Nitro have no vendor of their own.
    xen = _read(sys / "hypervisor/uuid").lower().startswith("ec2")
    if vendor == "Amazon EC2" or xen:
        found.append("aws")
    if vendor == "Google" or product == "Google Compute Engine":
        found.append("gcp")
    if _dmi(sys, "chassis_asset_tag") == _AZURE_ASSET_TAG:
        found.append("azure")
    names = os.environ if environment is None else environment
    return found + [name for name, variable in _SCHEDULERS.items() if names.get(variable)]


def _dmi(sys: Path, name: str) -> str:
    return _read(sys / "class/dmi/id" / name)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
