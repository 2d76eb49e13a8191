"""How a program of ours is started in the background: by this very Python, with an environment that we know."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from redflag.settings import Settings

# Says how a person talks to a server, and is nothing for a server itself
_OF_PEOPLE = ("REDFLAG_TOKEN", "REDFLAG_URL", "REDFLAG_DSN", "REDFLAG_SUPERUSER_DSN", "REDFLAG_LOG", "REDFLAG_CA_FILE")


def program(module: str, *arguments: str) -> list[str]:
    """The arguments that run a module with the Python that runs us."""
    return [sys.executable, "-m", module, *arguments]


def server_environment(here: Settings) -> dict[str, str]:
    """The caller's environment for the server, with every path made absolute: it works in its data folder."""
    environment = {key: value for key, value in os.environ.items() if key not in _OF_PEOPLE}
    environment["REDFLAG_VAR"] = str(here.folder)
    for name, path in (("REDFLAG_TLS_CERT", here.tls_cert), ("REDFLAG_TLS_KEY", here.tls_key)):
        if path is not None:
            environment[name] = str(Path(path).expanduser().absolute())
    return environment
