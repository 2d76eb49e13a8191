"""Facts about the host: who it is for enrolment, how it fares for a check-in, and what it is made of for system-info.

Read from /proc and the standard library; what a system does not tell (/proc is missing on darwin) is left out or 0.
Nothing here raises: a host with an odd kernel must still be able to check in.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from redflag_agent import __version__
from redflag_agent.files import utc_now

_GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armv7l": "arm",
    "armv6l": "arm",
}
_GIB = 1024.0**3


def identity() -> Dict[str, Any]:
    """Who this host is, in the words of the `register` call (Go's names for systems and architectures)."""
    machine = platform.machine().lower()
    return {
        "hostname": socket.gethostname(),
        "os_type": {"win32": "windows"}.get(sys.platform, sys.platform),
        "os_version": _os_version(),
        "os_architecture": _GO_ARCHITECTURES.get(machine, machine),
        "agent_version": __version__,
        "metadata": {"implementation": "python", "python": platform.python_version(), "kernel": platform.release()},
    }


def load() -> Dict[str, Any]:
    """How this host fares now, in the words of a check-in."""
    memory = _memory()
    total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
    used = max(total - available, 0)
    facts: Dict[str, Any] = {"version": __version__, "uptime": format_uptime(uptime_seconds())}
    if total and available:
        facts.update(
            memory_percent=round(100 * used / total, 1),
            memory_used_gb=round(used / _GIB, 2),
            memory_total_gb=round(total / _GIB, 2),
        )
    with suppress(OSError):
        disk = shutil.disk_usage("/")
        facts.update(
            disk_percent=round(100 * disk.used / disk.total, 1) if disk.total else 0.0,
            disk_used_gb=round(disk.used / _GIB, 2),
            disk_total_gb=round(disk.total / _GIB, 2),
        )
    return facts


def system_info(server_host: str) -> Dict[str, Any]:
    """What this host is made of, in the words of the `system-info` call (sizes in bytes)."""
    facts: Dict[str, Any] = {
        "timestamp": utc_now(),
        "cpu_threads": os.cpu_count() or 0,
        "memory_total": _memory().get("MemTotal", 0),
        "ip_address": _address(server_host),
        "processes": _processes(),
        "uptime": format_uptime(uptime_seconds()),
        "metadata": {"boot_id": boot_id(), "kernel": platform.release(), "os_version": _os_version()},
    }
    facts["cpu_model"], facts["cpu_cores"] = _processor(facts["cpu_threads"])
    with suppress(OSError):
        disk = shutil.disk_usage("/")
        facts.update(disk_total=disk.total, disk_used=disk.used)
    return facts


def boot_id() -> str:
    """An id that changes with every start of the host; "" if the system has none."""
    return _text("/proc/sys/kernel/random/boot_id") or _sysctl("kern.bootsessionuuid")


def uptime_seconds() -> float:
    """Seconds since the host was started."""
    with suppress(ValueError, IndexError):
        return float(_text("/proc/uptime").split()[0])
    return time.monotonic()


def format_uptime(seconds: float) -> str:
    """As `3d 4h 12m`."""
    minutes = int(seconds) // 60
    return f"{minutes // 1440}d {minutes // 60 % 24}h {minutes % 60}m"


def _text(path: str) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return Path(path).read_text(encoding="utf-8").strip()
    return ""


def _sysctl(name: str) -> str:
    """A value of a system without /proc, as darwin."""
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        ).stdout.strip()
    return ""


def _os_version() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip("\"'")
    return platform.mac_ver()[0] or platform.release()


def _memory() -> Dict[str, int]:
    """/proc/meminfo in bytes."""
    memory = {}
    for line in _text("/proc/meminfo").splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB" and words[1].isdigit():
            memory[words[0].rstrip(":")] = int(words[1]) * 1024
    if not memory:
        size = _sysctl("hw.memsize")
        return {"MemTotal": int(size)} if size.isdigit() else {}
    return memory


def _processor(threads: int) -> Tuple[str, int]:
    """The model's name and the number of physical cores."""
    model = ""
    cores = set()
    socket_id = ""
    for line in _text("/proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            model = model or value
        elif key == "physical id":
            socket_id = value
        elif key == "core id":
            cores.add((socket_id, value))
    return model or _sysctl("machdep.cpu.brand_string") or platform.processor(), len(cores) or threads


def _processes() -> int:
    with suppress(OSError):
        return sum(path.name.isdigit() for path in Path("/proc").iterdir())
    return 0


def _address(server_host: str) -> Optional[str]:
    """The address from which this host reaches the server. Connecting a datagram socket sends nothing."""
    with suppress(OSError, UnicodeError):
        family, kind, _, _, address = socket.getaddrinfo(server_host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    return None
