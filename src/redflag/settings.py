"""The settings: one place for every choice of an installation, read from REDFLAG_… variables.

A setting that contradicts another is refused at start, in one sentence, before anything is touched.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from pathlib import Path
from typing import Self

import pydantic
import pydantic_settings

from redflag.errors import SettingsError


class Settings(pydantic_settings.BaseSettings):
    """Every setting, with its default. Times are seconds, sizes bytes."""

    model_config = pydantic_settings.SettingsConfigDict(env_prefix="REDFLAG_", extra="ignore")

    var: Path = pydantic.Field(Path("var"), description="the data folder: database, logs, keys, process ids")
    host: str = pydantic.Field("127.0.0.1", description="the address to listen on; 0.0.0.0 for every one")
    port: int = pydantic.Field(8080, ge=1, le=65535, description="the port to listen on")
    workers: int = pydantic.Field(1, ge=1, le=64, description="server processes")
    public_url: str = pydantic.Field("", description="how agents and people reach the server, if not by host and port")
    tls_cert: Path | None = pydantic.Field(
        None, description="certificate chain (PEM); with tls_key the server speaks TLS"
    )
    tls_key: Path | None = pydantic.Field(None, description="private key of the certificate (PEM)")
    trusted_proxies: list[str] = pydantic.Field(
        [], description="networks (JSON list) whose X-Forwarded-For is believed; nobody's by default"
    )

    database_url: str = pydantic.Field(
        "", description="a PostgreSQL 18+ of your own, as the server's role; empty: the embedded one"
    )
    database_owner_url: str = pydantic.Field(
        "", description="the same database as the owner's role; used by migrations only"
    )
    database_direct_url: str = pydantic.Field("", description="past a pooler, for LISTEN and migrations")
    database_pool: int = pydantic.Field(8, ge=2, le=100, description="connections of one server process")

    check_in_interval: int = pydantic.Field(60, ge=30, le=3600, description="how often an agent comes by")
    sweep_interval: float = pydantic.Field(
        0.1, gt=0, le=60, description="pause between two looks for commands past their deadline"
    )
    sweep_gap: float = pydantic.Field(
        60.0, gt=0, description="nobody swept for this long: what could not be delivered gets more time"
    )
    sweep_grace: float = pydantic.Field(600.0, gt=0, description="how much more time that is")
    max_body: int = pydantic.Field(32 * 1024 * 1024, ge=65536, description="the largest request body")
    max_output: int = pydantic.Field(
        1024 * 1024, ge=1024, description="stdout and stderr of a command are cut at this many bytes each"
    )
    redact: list[str] = pydantic.Field([], description="more patterns of secrets (JSON list of regular expressions)")
    login_tries: int = pydantic.Field(10, ge=1, description="log-ins per address and per user name in five minutes")
    enrolment_tries: int = pydantic.Field(60, ge=1, description="enrolments per address in five minutes")
    session_hours: int = pydantic.Field(12, ge=1, le=720, description="how long a log-in lasts")
    log_origin: str = pydantic.Field(
        "", description="the log's name in its checkpoints; given once, and kept by the database"
    )
    log_key: str = pydantic.Field(
        "", repr=False, description="the log's private key (32 bytes in base64); empty: a file"
    )
    log_public: bool = pydantic.Field(
        False, description="serve the log's checkpoints, tiles and entries to whoever asks"
    )
    checkpoint_folder: Path | None = pydantic.Field(
        None, description="where files and git repositories of checkpoints are; else checkpoints in the data folder"
    )
    docs: bool = pydantic.Field(True, description="serve /api/docs and /api/openapi.json to whoever is logged in")
    log_level: str = pydantic.Field("info", pattern="^(debug|info|warning|error)$")
    replica: str = pydantic.Field(
        default_factory=lambda: socket.gethostname() or "server", description="this server's name in the records"
    )

    @pydantic.model_validator(mode="after")
    def _agree(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("REDFLAG_TLS_CERT and REDFLAG_TLS_KEY go together: give both or neither")
        for network in self.trusted_proxies:
            ipaddress.ip_network(network)
        if self.database_owner_url and not self.database_url:
            raise ValueError("REDFLAG_DATABASE_OWNER_URL goes with REDFLAG_DATABASE_URL")
        return self

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded one."""
        return not self.database_url

    @property
    def url(self) -> str:
        """How agents and people reach the server, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 - compared, not bound
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls_cert else 'http'}://{host}:{self.port}"

    @property
    def origin(self) -> str:
        """What the log is called if nobody named it: where it is served, without the scheme (C2SP tlog-tiles, "Parameters")."""
        return self.log_origin or self.url.partition("://")[2] + "/log"

    @property
    def log_folder(self) -> Path:
        """The log's key, and the newest checkpoint that this server knows."""
        return self.folder / "log-key"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints that are sent to files and git repositories, absolute."""
        given = self.checkpoint_folder
        return given.expanduser().resolve() if given else self.folder / "checkpoints"

    @property
    def folder(self) -> Path:
        """The data folder, absolute."""
        return self.var.expanduser().resolve()


@functools.lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process. Raises SettingsError with the name of the variable that is wrong."""
    try:
        return Settings()
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = "REDFLAG_" + "_".join(str(part) for part in first["loc"]).upper() if first["loc"] else "The settings"
        raise SettingsError(f"{name}: {first['msg']}", "Correct the variable, then start again") from None
