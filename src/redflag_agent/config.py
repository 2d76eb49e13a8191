"""The agent's configuration and credentials: config.json, mode 0600, in the state directory.

Promises: a saved configuration replaces the old one atomically and durably, so a crash during a token renewal leaves a
usable file. A file that is missing, damaged or readable by others is refused with a ConfigError that says what to do.
"""

from __future__ import annotations

import json
import stat
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, List, Optional
from urllib.parse import urlsplit

from redflag_agent.errors import ConfigError, UsageError
from redflag_agent.files import CONFIG_NAME, write_private
from redflag_verify import ED25519, Key, Unreadable

DEFAULT_STATE_DIR = "/var/lib/redflag-agent"
STATE_DIR_VARIABLE = "REDFLAG_AGENT_STATE"
DEFAULT_INTERVAL = 300.0


@dataclass
class Config:
    """What the agent knows of its server, and what its host allows.

    `check_in_interval` is in seconds. `allow_commands` names the command types that the host lets the server use; None
    means every type. `allow_reboot` must be set besides for `reboot`. `log_key` is the public key of the server's audit log,
    pinned at the enrolment or when first seen.
    """

    server: str
    agent_id: str
    access_token: str
    refresh_token: str
    check_in_interval: float = DEFAULT_INTERVAL
    allow_reboot: bool = False
    allow_commands: Optional[List[str]] = None
    ca_file: Optional[str] = None
    log_key: Optional[str] = None

    def __repr__(self) -> str:
        """Without the tokens: a repr ends up in logs."""
        return f"Config(server={self.server!r}, agent_id={self.agent_id!r})"


def is_uuid(value: object) -> bool:
    """Whether `value` is the text of a UUID of any version, in its canonical form."""
    if not isinstance(value, str):
        return False
    try:
        return str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def clean_interval(value: object, default: float) -> float:
    """The seconds between check-ins that a server asked for, within one second and one day."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return default
    return float(min(max(value, 1.0), 86400.0))


def clean_server(url: str) -> str:
    """Check a server URL and strip its trailing slash. A path prefix is kept."""
    advice = "give it as https://HOST[:PORT][/PREFIX]"
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise UsageError(f"The server URL {url!r} cannot be read; {advice}.") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_valid:
        raise UsageError(f"The server URL {url!r} names no http or https server; {advice}.")
    if parts.username is not None or parts.query or parts.fragment or any(c.isspace() or ord(c) < 33 for c in url):
        raise UsageError(f"The server URL must hold no user name, query, fragment or space; {advice}.")
    return url.rstrip("/")


def load(directory: Path) -> Config:
    """Read the enrolment from the state directory, or raise ConfigError."""
    path = directory / CONFIG_NAME
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"This host is not enrolled ({path} does not exist); "
            "run: redflag-agent enroll --server URL --token-file FILE"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; run as the user who enrolled this host.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{path} holds tokens and is open to other users; close it by: chmod 600 {path}")
    try:
        return _parse(json.loads(text))
    except (ValueError, TypeError, KeyError, UsageError) as error:
        raise ConfigError(f"{path} is damaged ({error}); correct it, or enroll again with --force.") from None


def _parse(data: Any) -> Config:
    known = {field.name for field in fields(Config)}
    config = Config(**{key: value for key, value in data.items() if key in known})
    config.server = clean_server(config.server)
    if not is_uuid(config.agent_id):
        raise ValueError("agent_id is no UUID")
    for name in ("access_token", "refresh_token"):
        if not clean_token(getattr(config, name)):
            raise ValueError(f"{name} is missing or holds characters that no token has")
    if not isinstance(config.allow_reboot, bool):
        raise ValueError("allow_reboot must be true or false")
    if config.allow_commands is not None and not isinstance(config.allow_commands, list):
        raise ValueError("allow_commands must be a list of command types, or null")
    if config.log_key is not None:
        parse_log_key(str(config.log_key))
    config.check_in_interval = clean_interval(config.check_in_interval, DEFAULT_INTERVAL)
    return config


def parse_log_key(vkey: str) -> Key:
    """The log's key from its name+id+base64 form (C2SP signed-note, "Verifier keys"), or raise UsageError."""
    try:
        return Key.parse(vkey, ED25519)
    except Unreadable as error:
        raise UsageError(
            f"The log's key cannot be used: {error}; copy it again, whole, as `redflag audit key` prints it."
        ) from None


def clean_token(value: object) -> bool:
    """Whether `value` can stand in a header: printable ASCII without spaces, of a sane length."""
    return isinstance(value, str) and 0 < len(value) <= 8192 and all(33 <= ord(c) < 127 for c in value)


def save(directory: Path, config: Config) -> None:
    """Write the configuration durably, or raise ConfigError."""
    try:
        write_private(directory / CONFIG_NAME, (json.dumps(asdict(config), indent=2) + "\n").encode())
    except OSError as error:
        raise ConfigError(
            f"{directory / CONFIG_NAME} cannot be written: {error.strerror}; free space or check its owner."
        ) from None
