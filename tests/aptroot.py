"""A Debian of one's own in a folder: the machine's real apt and dpkg, with their lists, their status and their files elsewhere.

Packages of nothing but a file are built, published as a repository in the folder, and installed from it. What the machine has
installed is neither seen nor touched: whoever runs apt with `APT_CONFIG` set to `config` is in here.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

FOLDERS = (
    "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/log/apt", "repository",
    "tmp",
)  # fmt: skip


class AptRoot:
    """The folder and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "apt.conf"
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "var/lib/dpkg/status").touch()
        (folder / "var/lib/dpkg/available").touch()
        self.config.write_text(
            f'Dir "{folder}";\nDir::State::status "{folder}/var/lib/dpkg/status";\nDir::Bin::dpkg "/usr/bin/dpkg";\n'
            f'DPkg::Options {{ "--root={folder}"; "--force-not-root"; "--force-bad-path"; }};\nAPT::Sandbox::User "root";\n'
        )
        (folder / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{folder}/repository ./\n")

    def environment(self) -> dict[str, str]:
        """What a process needs to be in here."""
        return os.environ | {"APT_CONFIG": str(self.config)}

    def run(self, *argv: str) -> str:
        """Runs a program in here. Raises CalledProcessError."""
        done = subprocess.run(argv, env=self.environment(), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def publish(self, name: str, version: str, *, depends: str = "") -> None:
        """Builds a package and adds it to the repository."""
        tree = self.folder / "tmp" / f"{name}_{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/share" / name).mkdir(parents=True)
        (tree / "usr/share" / name / "version").write_text(version + "\n")
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n"
            + (f"Depends: {depends}\n" if depends else "")
            + f"Section: misc\nPriority: optional\nDescription: {name}, which is a file\n"
        )
        (tree / "DEBIAN/control").write_text(control)
        package = self.folder / "repository" / f"{name}_{version}_all.deb"
        self.run("dpkg-deb", "--build", "--root-owner-group", str(tree), str(package))
        content = package.read_bytes()
        with (self.folder / "repository/Packages").open("a") as index:
            index.write(
                f"{control}Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n\n"
            )

    def install(self, *names: str) -> None:
        """Installs packages from the repository."""
        self.run("apt-get", "update", "-qq")
        self.run("apt-get", "install", "-y", "-qq", *names)

    def installed(self, name: str) -> str:
        """The version that is installed."""
        return self.run("dpkg-query", f"--admindir={self.folder}/var/lib/dpkg", "-W", "-f", "${Version}", name)
