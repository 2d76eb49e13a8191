"""The agent of the server's own host: whether it is enrolled, and how it becomes so.

It is an ordinary agent: it is enrolled through the server's API with a token of one seat, and its state lies in the data
folder.
"""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from redflag.cli.client import Client, local_url
from redflag.cli.databases import hostname
from redflag.cli.place import Place
from redflag.cli.processes import program
from redflag.errors import NotFound, ProcessError
from redflag.settings import Settings
from redflag.supervisor import write_private

ENROL_SECONDS = 60
# What an agent gets of our environment: where programs are, and how to reach the world
_PASSED = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "LD_LIBRARY_PATH",
)  # fmt: skip


class Standing(enum.Enum):
    """What the server says of this host's agent."""

    NONE = "not enrolled, or with a server that knows it no more"
    ENROLLED = "enrolled"
    REMOVED = "removed by an administrator"


def enrolled(folder: Place) -> bool:
    """Whether this host has an enrolment in the data folder, known to the server or not."""
    return bool(_agent_id(folder))


def standing(api: Client, folder: Place) -> Standing:
    """Whether the server knows this host's agent."""
    agent_id = _agent_id(folder)
    if not agent_id:
        return Standing.NONE
    try:
        shown = api.get(f"/api/v1/agents/{agent_id}")
    except NotFound:
        return Standing.NONE
    return Standing.REMOVED if shown.get("removed_at") else Standing.ENROLLED


def enrol(here: Settings, folder: Place, api: Client) -> str:
    """Enrols this host, in place of an enrolment that is worth nothing any more. Returns the agent's id."""
    invited = api.post(
        "/api/v1/enrolment-tokens", {"label": f"the server's own host, {hostname()}", "seats": 1, "hours": 1}
    )
    argv = program("redflag_agent", "enroll", "--state-dir", str(folder.agent), "--token-stdin", "--json")
    argv += ["--server", _server(here)]
    if enrolled(folder):
        argv.append("--force")
    if here.tls_cert is not None and _signs_itself(here.tls_cert):
        argv += ["--ca-file", str(here.tls_cert.absolute())]
    try:
        result = subprocess.run(
            argv,
            input=invited["token"] + "\n",
            env=environment(),
            capture_output=True,
            text=True,
            timeout=ENROL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProcessError(f"The agent did not enrol within {ENROL_SECONDS} s", "Run `redflag up` again") from None
    if result.returncode != 0:
        said = result.stderr.strip().splitlines()
        reason = said[-1].removeprefix("redflag-agent: ") if said else f"exit code {result.returncode}"
        advice = "" if here.public_url or here.tls_cert is None else "Set REDFLAG_PUBLIC_URL to the certificate's name"
        raise ProcessError(
            f"This host could not be enrolled: {reason}", advice or "Correct it, then run `redflag up` again"
        )
    return str(json.loads(result.stdout)["agent_id"])


def enqueue_scan(api: Client, agent_id: str) -> str:
    """A first scan for updates; returns the command's id."""
    made = api.post("/api/v1/commands", {"agent_ids": [agent_id], "command_type": "scan_updates"})
    return str(made["commands"][0]["id"])


def environment() -> dict[str, str]:
    """The environment of this host's agent: none of the server's settings, and none of a person's secrets."""
    return {name: os.environ[name] for name in _PASSED if name in os.environ} | {"PATH": _path()}


def is_elsewhere(here: Settings, folder: Place) -> bool:
    """Whether this host's agent looks for the server where it is no more, as after a start on another port."""
    return _configuration(folder).get("server") != _server(here)


def point_here(here: Settings, folder: Place) -> None:
    """Tells this host's agent, which must not run, where the server is now. It stays the agent that it was."""
    changed = _configuration(folder) | {"server": _server(here)}
    write_private(folder.agent / "config.json", json.dumps(changed, indent=2) + "\n")


def _server(here: Settings) -> str:
    # A certificate is made for the public name, and that is what an agent checks
    return here.url if here.public_url else local_url(here)


def _path() -> str:
    # The machine's programs, whatever PATH `redflag up` was started with
    known = os.environ.get("PATH", os.defpath).split(os.pathsep)
    system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    ours = str(Path(sys.executable).parent)
    return os.pathsep.join(dict.fromkeys([one for one in known if one != ours] + system))


def _agent_id(folder: Place) -> str:
    return str(_configuration(folder).get("agent_id", ""))


def _configuration(folder: Place) -> dict[str, Any]:
    """The agent's own file; empty when there is none, or none that can be read as one."""
    try:
        found = json.loads(folder.read(folder.agent / "config.json") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _signs_itself(certificate: Path) -> bool:
    from cryptography import x509  # noqa: PLC0415 - needed with TLS only

    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    return loaded.issuer == loaded.subject
