"""What agents say and are told: the bodies of their requests, and what they read of the answers."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec

import redflag

VARIANTS = 64
# What a server may say of a command's end that it did not just record
OTHER_STATUSES = frozenset({"already_recorded", "late", "not_recorded"})
_OLD_VERSION = "0.1.18"


class Command(msgspec.Struct):
    """A command that was handed out."""

    id: str
    type: str = ""
    params: dict[str, Any] | None = None


class CheckedIn(msgspec.Struct):
    """The answer to a check-in. `wait`: for how many seconds the next call may be held."""

    commands: list[Command] | None = None
    ended: list[str] | None = None
    check_in_interval: float = 0.0
    wait: float = 0.0
    log: dict[str, Any] | None = None


class Progressed(msgspec.Struct):
    """The answer to progress: which commands are live, and which are no more."""

    live: dict[str, float] | None = None
    ended: list[str] | None = None


class Reported(msgspec.Struct):
    """The answer to a command's end. A server of RedFlag's own says nothing of a status."""

    status: str = "recorded"


class Renewed(msgspec.Struct):
    """The answer to a renewal."""

    token: str


checked_in = msgspec.json.Decoder(CheckedIn).decode
progressed = msgspec.json.Decoder(Progressed).decode
reported = msgspec.json.Decoder(Reported).decode
renewed = msgspec.json.Decoder(Renewed).decode


def metrics(protocol: int, chance: random.Random) -> list[bytes]:
    """Check-ins' bodies with how hosts fare, without what closes them."""
    made = []
    for _ in range(VARIANTS):
        total, disk = chance.choice((4, 8, 16, 64)), chance.choice((20, 64, 252))
        memory, used = chance.uniform(5, 95), chance.uniform(5, 95)
        says = {
            "version": redflag.__version__ if protocol else _OLD_VERSION,
            "uptime": f"up {chance.randint(1, 400)} days",
            "memory_percent": round(memory, 1),
            "memory_used_gb": round(memory * total / 100, 2),
            "memory_total_gb": total,
            "disk_percent": round(used, 1),
            "disk_used_gb": round(used * disk / 100, 2),
            "disk_total_gb": disk,
        } | ({"protocol": 1} if protocol else {})
        made.append(json.dumps(says, separators=(",", ":")).encode()[:-1])
    return made


def outputs(size: int, chance: random.Random) -> list[bytes]:
    """What commands print, `size` bytes each, as JSON texts."""
    made = []
    for _ in range(8):
        lines, length = [], 0
        while length < size:
            name, version = (
                chance.choice(("libssl", "libc", "python", "linux-image", "curl", "perl")),
                chance.randint(1, 99_999),
            )
            lines.append(f"Setting up {name}{chance.randint(1, 99)} (1.{version}-{chance.randint(1, 9)}+deb12u7) ...\n")
            length += len(lines[-1])
        made.append(json.dumps("".join(lines)[:size]).encode())
    return made


def system_info(chance: random.Random) -> bytes:
    """A host's facts."""
    said = {
        "cpu_model": "simulated",
        "cpu_cores": 2,
        "cpu_threads": 4,
        "memory_total": 8 << 30,
        "disk_total": 64 << 30,
        "disk_used": 20 << 30,
        "ip_address": "192.0.2.1",
        "processes": chance.randint(80, 400),
        "uptime": f"up {chance.randint(1, 400)} days",
        "metadata": {"kernel": "6.1.0", "os_version": "Debian GNU/Linux 12 (bookworm)"},
    }
    return json.dumps(said, separators=(",", ":")).encode()


def enrolment(number: int, protocol: int, token: str) -> dict[str, Any]:
    """What the simulated host of this number says as it enrols."""
    return {
        "hostname": hostname(number),
        "os_type": "linux",
        "os_version": "simulated",
        "os_architecture": "amd64",
        "agent_version": redflag.__version__ if protocol else _OLD_VERSION,
        "registration_token": token,
        "metadata": {"simulated": "true"},
    } | ({"protocol": 1} if protocol else {})


def hostname(number: int) -> str:
    """What a simulated host is called."""
    return f"simulated-{number:06d}"


def progress(received: list[str], running: list[str]) -> bytes:
    """Which commands an agent has, and which of them it runs."""
    return b'{"received":[%b],"running":[%b],"progress":[]}' % (_ids(received), _ids(running))


def held(says: bytes, commands: list[str], log: bytes = b"") -> bytes:
    """A check-in's body of an agent of this project, which names the commands it holds; `log`: the checkpoint that it holds."""
    asked = b',"log":' + log if log else b""
    return b'%b,"held":[%b]%b}' % (says, _ids(commands), asked)


def report(command: Command, seconds: float, output: bytes) -> bytes:
    """A command's end."""
    return b'{"command_id":"%b","action":%b,"result":"success","stdout":%b,"stderr":"","exit_code":0,"duration_seconds":%d}' % (
        command.id.encode(), json.dumps(command.type).encode(), output, round(seconds),
    )  # fmt: skip


def _ids(commands: list[str]) -> bytes:
    return b",".join(b'"%b"' % one.encode() for one in commands)
