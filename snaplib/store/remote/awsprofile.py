"""What AWS's own tools keep in files: keys, region and endpoint of a profile.

obstore knows the environment, web identities and the metadata services of machines and containers;
``~/.aws/credentials`` and ``~/.aws/config`` it does not read.
"""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["aws_profile"]

#: With one of these the environment says where credentials come from.
_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


def aws_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the profile that the environment chooses, under obstore's names.

    Args:
        environment: Environment variables.
    """
    home = Path(environment.get("HOME", "/"))
    profile = environment.get("AWS_PROFILE", "default")
    section = profile if profile == "default" else f"profile {profile}"
    config = _section(environment.get("AWS_CONFIG_FILE") or home / ".aws/config", section)
    keys = _section(
        environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials", profile
    )
    found: dict[str, str] = {}
    if not any(environment.get(name) for name in ("AWS_REGION", "AWS_DEFAULT_REGION")):
        found.update({"region": config["region"]} if "region" in config else {})
    if "endpoint_url" in config:
        found["endpoint"] = config["endpoint_url"]
    if not any(environment.get(name) for name in _ENVIRONMENT):
        both = {**config, **keys}
        if "aws_access_key_id" in both:
            found.update({ours: both[theirs] for theirs, ours in _KEYS.items() if theirs in both})
    return found


def _section(path: str | Path, name: str) -> dict[str, str]:
    # No interpolation: a secret may hold a percent sign.
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (OSError, UnicodeError, configparser.Error):
        return {}
    return dict(parser[name]) if parser.has_section(name) else {}
