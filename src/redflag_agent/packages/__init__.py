"""The registry of package managers: which this host has, by the package type that the protocol names.

Choosing a manager that the host does not have is a PackageError, which says what it has.
"""

from __future__ import annotations

from typing import Dict, List, Mapping

from redflag_agent.errors import PackageError
from redflag_agent.packages import apt
from redflag_agent.packages.base import PackageManager


def available() -> Dict[str, PackageManager]:
    """The package managers of this host, by package type."""
    found: List[PackageManager] = [apt.Apt()] if apt.is_available() else []
    return {manager.package_type: manager for manager in found}


def choose(managers: Mapping[str, PackageManager], package_type: object) -> PackageManager:
    """The manager for a package type, or a PackageError that names what this host has."""
    if isinstance(package_type, str) and package_type in managers:
        return managers[package_type]
    here = ", ".join(sorted(managers)) or "none"
    raise PackageError(f"This host has no package manager for the type {str(package_type)[:100]!r} (it has: {here}).")
