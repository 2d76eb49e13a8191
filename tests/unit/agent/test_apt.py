"""The apt package manager: its parsers on captured output of Debian 12, and the real tools where the host has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from redflag_agent import runner
from redflag_agent.errors import PackageError
from redflag_agent.packages import apt, available, choose
from redflag_agent.packages.base import Change, ProgramFailed
from redflag_agent.runner import Completed, Deadline, Stop

needs_apt = pytest.mark.skipif(not apt.is_available() or os.geteuid() != 0, reason="needs apt and root")

LISTED = """Listing...
apt/oldstable-security 2.6.2 amd64 [upgradable from: 2.6.1]
python3-jwt/oldstable,oldstable-security 2.6.0-1+deb12u1 all [upgradable from: 2.6.0-1]
libc6/oldstable 2.36-9+deb12u13 i386 [upgradable from: 2.36-9+deb12u10]

WARNING: apt does not have a stable CLI interface. Use with caution in scripts.
"""

POLICY = """apt:
  Installed: 2.6.1
  Candidate: 2.6.2
  Version table:
     2.6.2 500
        500 http://mirror.example/debian-security bookworm-security/main amd64 Packages
 *** 2.6.1 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
        100 /var/lib/dpkg/status
tzdata:
  Installed: 2025b-0+deb12u1
  Candidate: 2025b-0+deb12u2
  Version table:
     2025b-0+deb12u2 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
     2025b-0+deb12u1.1 500
        500 http://mirror.example/debian-security bookworm-security/main amd64 Packages
 *** 2025b-0+deb12u1 100
        100 /var/lib/dpkg/status
libc6:i386:
  Installed: 2.36-9+deb12u10
  Candidate: 2.36-9+deb12u13
  Version table:
     2.36-9+deb12u13 500
        500 http://mirror.example/debian bookworm/main i386 Packages
 *** 2.36-9+deb12u10 500
        500 http://mirror.example/debian-security bookworm-security/main i386 Packages
        100 /var/lib/dpkg/status
mail-transport-agent:
  Installed: (none)
  Candidate: (none)
  Version table:
"""

SHOWN = """Package: bash
Source: bash (5.2.15-2)
Version: 5.2.15-2+b13
Installed-Size: 7164
Architecture: amd64
Description: GNU Bourne Again SHell
Description-md5: 3522aa7b4374048d6450e348a5bb45d9
Tag: admin::TODO, devel::TODO, devel::interpreter, implemented-in::c,
 interface::shell, interface::text-mode, role::program,
Section: shells
Size: 1490652

Package: hello
Version: 2.10-3
Architecture: amd64
Size: 53084
"""

PLANNED = """Reading package lists...
Inst curl [7.88.1-10+deb12u14] (7.88.1-10+deb12u15 Debian:12.15/oldstable [amd64]) []
Inst libcurl4 [7.88.1-10+deb12u14] (7.88.1-10+deb12u15 Debian:12.15/oldstable [amd64])
Inst exim4-config (4.96-15+deb12u10 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [all])
Remv mawk [1.3.4.20200120-3.1] []
Conf libcurl4 (7.88.1-10+deb12u15 Debian:12.15/oldstable [amd64])
"""


def real_run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, keep: int | None = None) -> Completed:
    return runner.run(argv, Deadline(110), Stop(), env=env, keep=keep or runner.KEEP)


def test_the_list_of_upgradable_packages_is_read() -> None:
    listed = apt.parse_upgradable(LISTED)

    assert [item["name"] for item in listed] == ["apt", "python3-jwt", "libc6"]
    assert listed[1] == {
        "name": "python3-jwt",
        "suites": "oldstable,oldstable-security",
        "new": "2.6.0-1+deb12u1",
        "arch": "all",
        "old": "2.6.0-1",
    }


def test_the_policy_is_read_down_to_the_installed_version() -> None:
    policies = apt.parse_policy(POLICY)

    assert policies["apt"].newer == [("2.6.2", [("http://mirror.example/debian-security", "bookworm-security/main")])]
    assert [version for version, _ in policies["tzdata"].newer] == ["2025b-0+deb12u2", "2025b-0+deb12u1.1"]
    assert policies["libc6:i386"].candidate == "2.36-9+deb12u13"
    assert policies["mail-transport-agent"].candidate == "(none)"


def test_an_update_is_for_security_if_any_newer_version_is() -> None:
    policies = apt.parse_policy(POLICY)
    items = {
        name: {"name": name, "suites": "", "new": policies[name].candidate, "arch": "amd64", "old": "1"}
        for name in ("apt", "tzdata", "libc6:i386")
    }
    found = {name: apt._update(item, policies[name], {}, {"apt"}, {}) for name, item in items.items()}

    assert (found["apt"].severity, found["apt"].repository_source) == ("important", "bookworm-security")
    assert found["apt"].metadata["held"]
    assert (found["tzdata"].severity, found["tzdata"].repository_source) == ("important", "bookworm")
    assert found["libc6:i386"].severity == "moderate"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (("http://m/debian-security", "bookworm-security/main"), True),
        (("http://m/ubuntu", "jammy-security/universe"), True),
        (("http://m/ubuntu", "jammy-apps-security/main"), True),
        (("http://m/debian-security", "buster/updates/main"), True),
        (("http://m/ubuntu", "jammy-updates/main"), False),
        (("http://m/debian", "bookworm/main"), False),
    ],
)
def test_security_archives_are_told_by_their_suite(source: tuple[str, str], expected: bool) -> None:
    assert apt.is_security([source]) is expected


def test_package_records_are_read() -> None:
    records = apt.parse_show(SHOWN)

    record = records["bash", "amd64", "5.2.15-2+b13"]
    assert (record["Size"], record["Description"]) == ("1490652", "GNU Bourne Again SHell")
    assert records["hello", "amd64", "2.10-3"]["Size"] == "53084"


def test_changelog_addresses_are_taken_only_if_they_are_web_addresses() -> None:
    text = "'https://m.example/b/bash_5.2_changelog' bash.changelog\n'copy:///x' hello.changelog\n"

    assert apt.parse_changelogs(text) == {"bash": "https://m.example/b/bash_5.2_changelog"}


def test_a_simulation_is_read_as_changes() -> None:
    assert apt.parse_plan(PLANNED) == [
        Change("curl", "upgrade", "7.88.1-10+deb12u14", "7.88.1-10+deb12u15"),
        Change("libcurl4", "upgrade", "7.88.1-10+deb12u14", "7.88.1-10+deb12u15"),
        Change("exim4-config", "install", "", "4.96-15+deb12u10"),
        Change("mawk", "remove", "1.3.4.20200120-3.1", ""),
    ]


@pytest.mark.parametrize("package", ["g++", "libc6:i386", "libstdc++6", "hello=2.10-3", "apt=1:2.6.1~rc1+b2", "0ad"])
def test_names_and_versions_of_debian_are_accepted(package: str) -> None:
    assert apt.check_package(package) == package.partition("=")[0]


@pytest.mark.parametrize(
    "package",
    ["-y", "--help", "", "a", "Bash", "bash-", "bash:amd64-", "bash=5-", "bash=", "bash/sid", "task^", "b*", "a b",
     "bash;id", "$(id)", "./x.deb", "/tmp/x.deb", "bash\n", "bash=1;id", "bash=-o", "x" * 400],
)  # fmt: skip
def test_what_apt_could_take_for_something_else_is_refused(package: str) -> None:
    with pytest.raises(PackageError, match="no package of Debian"):
        apt.check_package(package)


def test_a_package_type_that_the_host_does_not_have_is_named() -> None:
    with pytest.raises(PackageError, match="no package manager for the type 'dnf'"):
        choose(available(), "dnf")


@needs_apt
@pytest.mark.usefixtures("apt_to_itself")
def test_a_real_scan_agrees_with_apt_itself() -> None:
    text = subprocess.run(
        ["apt-get", "-s", "dist-upgrade"], capture_output=True, text=True, check=True, env=runner.environment()
    ).stdout
    planned = {change.name for change in apt.parse_plan(text) if change.action == "upgrade"}

    updates = {update.package_name: update for update in apt.Apt().scan(real_run, refresh=False)}

    assert planned <= set(updates)
    for update in updates.values():
        assert update.current_version != update.available_version
        assert update.severity in {"moderate", "important"}
        assert update.size_bytes > 0
        assert update.package_description
        assert update.repository_source
        assert (
            subprocess.run(
                ["dpkg", "--compare-versions", update.available_version, "gt", update.current_version], check=False
            ).returncode
            == 0
        )


@needs_apt
@pytest.mark.usefixtures("apt_to_itself")
def test_a_real_dry_run_names_every_other_package_that_would_change() -> None:
    done, changes = apt.Apt().plan(real_run, ["hello"])
    if not changes:
        pytest.skip("hello is installed on this host")

    assert [(change.name, change.action) for change in changes] == [("hello", "install")]
    assert "Inst hello" in done.stdout
    assert shutil.which("hello") is None


@needs_apt
@pytest.mark.usefixtures("apt_to_itself")
def test_a_real_dry_run_of_an_unknown_package_fails_with_a_sentence() -> None:
    with pytest.raises(PackageError, match="apt knows no package 'nosuchpackage'"):
        apt.Apt().plan(real_run, ["nosuchpackage"])


@needs_apt
@pytest.mark.usefixtures("apt_to_itself")
@pytest.mark.parametrize("name", ["hell.", "bas+"])
def test_a_name_is_never_taken_for_a_regular_expression(name: str) -> None:
    with pytest.raises(PackageError, match="apt knows no package"):
        apt.Apt().plan(real_run, [name])


@needs_apt
@pytest.mark.usefixtures("apt_to_itself")
def test_a_version_that_does_not_exist_fails_with_apts_words() -> None:
    with pytest.raises(PackageError, match=r"cannot be planned: E: Version '0.0.1' for 'hello' was not found"):
        apt.Apt().plan(real_run, ["hello=0.0.1"])


@needs_apt
@pytest.mark.usefixtures("apt_to_itself")
def test_an_installation_that_is_stopped_takes_dpkg_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("hello"):
        pytest.skip("hello is installed on this host")
    marker = tmp_path / "dpkg-runs"
    # dpkg runs this before it touches a package: the test stops it there, and nothing is installed.
    settings = tmp_path / "apt.conf"
    settings.write_text(
        f'Dpkg::Options {{ "--pre-invoke=echo $PPID > {marker}.new; mv {marker}.new {marker}; sleep 60"; }};\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(settings))
    stop, over = Stop(), threading.Event()

    def stop_when_dpkg_runs() -> None:
        while not marker.exists() and not over.wait(0.05):
            pass
        stop.set("ended")

    def run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, keep: int | None = None) -> Completed:
        return runner.run(argv, Deadline(100), stop, env=env, keep=keep or runner.KEEP, grace=3)

    watcher = threading.Thread(target=stop_when_dpkg_runs)
    watcher.start()
    try:
        with pytest.raises(ProgramFailed) as failed:
            apt.Apt().install(run, ["hello"], may_remove=False)
    finally:
        over.set()
        watcher.join()
    if not marker.exists():
        pytest.skip("no package archive can be reached")

    assert failed.value.completed.ended_by == "ended"
    assert not Path(f"/proc/{int(marker.read_text())}/stat").exists()
    assert shutil.which("hello") is None
