"""Debian's package manager, through the host's own apt-get, apt, apt-cache and apt-mark.

Promises: package names and versions are checked against Debian's grammar (Debian Policy §5.6.1, §5.6.12) and stand
behind `--`, and each name must be known to apt exactly: apt-get would otherwise read `bash-` as "remove bash" and
`lib.` as a regular expression. Configuration files that an administrator changed are kept. A plain installation never
removes a package. One process serves all packages of a scan. Failures are PackageErrors with apt's own words; a dpkg
lock is waited for up to 60 s.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from typing import Dict, Iterable, List, Optional, Sequence, Set, Tuple

from redflag_agent.errors import PackageError
from redflag_agent.packages.base import Change, ProgramFailed, Run, Update
from redflag_agent.runner import Completed

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?")
_VERSION = re.compile(r"([0-9]+:)?[0-9][A-Za-z0-9.+~-]*")
_LISTED = re.compile(
    r"(?P<name>[^/\s]+)/(?P<suites>\S*) (?P<new>\S+) (?P<arch>\S+) \[upgradable from: (?P<old>[^\]]+)\]"
)
_PLANNED = re.compile(r"(?P<verb>Inst|Remv|Purg) (?P<name>\S+)(?: \[(?P<old>[^\]]*)\])?(?: \((?P<new>\S+)[^)]*\))?.*")
_POLICY_VERSION = re.compile(r" (?:\*\*\*|   ) (\S+) -?\d+.*")
_POLICY_SOURCE = re.compile(r" {8,} *-?\d+ (\S+) (\S+) \S+ Packages")
_CHANGELOG = re.compile(r"'([^']+)' (\S+)\.changelog")

_LOCK = ("-o", "DPkg::Lock::Timeout=60")
_KEEP_CONFIGURATION = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
# On a pseudo-terminal apt puts dpkg into a session of its own, where the end of the process group would not reach it.
_SAME_GROUP = ("-o", "Dpkg::Use-Pty=0")
_ENVIRONMENT = {"UCF_FORCE_CONFFOLD": "1", "APT_LISTCHANGES_FRONTEND": "none"}
_KEEP_ALL = 32 * 1024 * 1024  # output that is parsed must be whole


@dataclass
class _Policy:
    """What apt-cache policy says of one package: its candidate, and where each version newer than the installed one
    comes from."""

    candidate: str = ""
    newer: List[Tuple[str, List[Tuple[str, str]]]] = field(
        default_factory=list
    )  # (version, [(address, suite/component)])


def is_available() -> bool:
    """Whether this host has apt."""
    return all(shutil.which(tool) for tool in ("apt-get", "apt-cache", "dpkg"))


class Apt:
    """The package manager of Debian and its descendants."""

    package_type = "apt"

    def scan(self, run: Run, *, refresh: bool) -> List[Update]:
        """Every package with a newer candidate than the installed version, held ones included."""
        if refresh:
            # Without this option apt-get ends with 0 although an index could not be fetched, and the host would pass
            # for up to date.
            _must(
                run,
                ["apt-get", "update", *_LOCK, "-o", "APT::Update::Error-Mode=any"],
                "The package index cannot be refreshed",
            )
        listed = parse_upgradable(_must(run, ["apt", "list", "--upgradable"], "The packages cannot be listed").stdout)
        if not listed:
            return []
        native = _must(run, ["dpkg", "--print-architecture"], "The architecture cannot be read").stdout.strip()
        for item in listed:
            if item["arch"] not in {native, "all"}:
                item["name"] = f"{item['name']}:{item['arch']}"
        names = [item["name"] for item in listed]
        policies = parse_policy(
            _must(run, ["apt-cache", "policy", "--", *names], "The package sources cannot be read").stdout
        )
        records = parse_show(
            _must(
                run, ["apt-cache", "show", "--no-all-versions", "--", *names], "The package records cannot be read"
            ).stdout
        )
        # Neither of these two is worth failing a scan for: third-party repositories have no changelogs, minimal hosts
        # no apt-mark.
        held = set(run(["apt-mark", "showhold"]).stdout.split())
        changelogs = parse_changelogs(
            run(["apt-get", "changelog", "--print-uris", "--", *names], keep=_KEEP_ALL).stdout
        )
        return [_update(item, policies.get(item["name"]), records, held, changelogs) for item in listed]

    def plan(self, run: Run, packages: Sequence[str]) -> Tuple[Completed, List[Change]]:
        """What `apt-get install` would do, from its own simulation."""
        self._check(run, packages)
        done = _must(run, ["apt-get", "-s", "install", "-y", "--", *packages], "The installation cannot be planned")
        return done, parse_plan(done.stdout)

    def install(self, run: Run, packages: Sequence[str], *, may_remove: bool) -> Completed:
        """Install or upgrade the packages with what they need; without packages, upgrade all that need no removal."""
        self._check(run, packages)
        options = ["-y", *_LOCK, *_SAME_GROUP, *_KEEP_CONFIGURATION, *([] if may_remove else ["--no-remove"])]
        argv = ["apt-get", "install", *options, "--", *packages] if packages else ["apt-get", "upgrade", *options]
        return _ended(run(argv, env=_ENVIRONMENT), "The installation failed")

    def _check(self, run: Run, packages: Sequence[str]) -> None:
        if not packages:
            return
        names = [check_package(package) for package in packages]
        known = parse_policy(
            _must(run, ["apt-cache", "policy", "--", *names], "The packages cannot be looked up").stdout
        )
        for name in names:
            policy = known.get(name) or known.get(name.partition(":")[0])
            if policy is None or policy.candidate in {"", "(none)"}:
                raise PackageError(
                    f"apt knows no package {name!r} that can be installed; scan with a refresh of the index."
                )


def check_package(package: str) -> str:
    """The name in NAME or NAME=VERSION, or a PackageError if either breaks Debian's grammar or could mean something
    else to apt-get."""
    name, equals, version = package.partition("=")
    well_formed = _NAME.fullmatch(name) and (not equals or _VERSION.fullmatch(version))
    # apt-get takes a trailing "-" as an order to remove the package.
    if not well_formed or len(package) > 300 or name.endswith("-") or version.endswith("-"):
        raise PackageError(f"{package[:100]!r} is no package of Debian, as NAME or NAME=VERSION; nothing was done.")
    return name


def parse_upgradable(text: str) -> List[Dict[str, str]]:
    """The lines of `apt list --upgradable`: name, suites, new, arch, old."""
    return [match.groupdict() for match in map(_LISTED.fullmatch, text.splitlines()) if match]


def parse_policy(text: str) -> Dict[str, _Policy]:
    """The answer of `apt-cache policy` for several packages, by package."""
    policies: Dict[str, _Policy] = {}
    policy = _Policy()
    is_newer = True
    for line in text.splitlines():
        version = _POLICY_VERSION.fullmatch(line)
        source = _POLICY_SOURCE.fullmatch(line)
        if line and not line.startswith(" ") and line.endswith(":"):
            policy = policies[line[:-1]] = _Policy()
            is_newer = True
        elif line.startswith("  Candidate: "):
            policy.candidate = line[len("  Candidate: ") :].strip()
        elif version:
            # The table is sorted from the newest version down.
            is_newer = is_newer and not line.startswith(" ***")
            if is_newer:
                policy.newer.append((version.group(1), []))
        elif source and is_newer and policy.newer:
            policy.newer[-1][1].append((source.group(1), source.group(2)))
    return policies


def parse_show(text: str) -> Dict[Tuple[str, str, str], Dict[str, str]]:
    """The records of `apt-cache show`, by (package, architecture, version); of fields with several lines the first
    line."""
    records: Dict[Tuple[str, str, str], Dict[str, str]] = {}
    for paragraph in text.split("\n\n"):
        fields: Dict[str, str] = {}
        for line in paragraph.splitlines():
            key, colon, value = line.partition(":")
            if colon and not line.startswith((" ", "\t")):
                fields.setdefault(key, value.strip())
        if "Package" in fields:
            records[fields["Package"], fields.get("Architecture", ""), fields.get("Version", "")] = fields
    return records


def parse_changelogs(text: str) -> Dict[str, str]:
    """The answer of `apt-get changelog --print-uris`: addresses by package."""
    found = (_CHANGELOG.fullmatch(line) for line in text.splitlines())
    return {
        match.group(2): match.group(1)
        for match in found
        if match and match.group(1).startswith(("https://", "http://"))
    }


def parse_plan(text: str) -> List[Change]:
    """The Inst and Remv lines of a simulation, in apt's order."""
    changes = []
    for match in filter(None, map(_PLANNED.fullmatch, text.splitlines())):
        old, new = match.group("old") or "", match.group("new") or ""
        action = "remove" if match.group("verb") != "Inst" else "upgrade" if old else "install"
        changes.append(Change(match.group("name"), action, old, new))
    return changes


def is_security(sources: Iterable[Tuple[str, str]]) -> bool:
    """Whether one of the (address, suite/component) pairs is a security archive: SUITE-security, or SUITE/updates
    before Debian 11."""
    return any(
        suite.partition("/")[0].endswith("-security")
        or "/updates/" in suite
        or "security" in address.rsplit("/", 1)[-1]
        for address, suite in sources
    )


def _update(
    item: Dict[str, str],
    policy: Optional[_Policy],
    records: Dict[Tuple[str, str, str], Dict[str, str]],
    held: Set[str],
    changelogs: Dict[str, str],
) -> Update:
    name = item["name"]
    base = name.partition(":")[0]
    record = records.get((base, item["arch"], item["new"]), {})
    newer = policy.newer if policy else []
    # A security fix that a later version superseded is in that version too.
    security = is_security(source for _, sources in newer for source in sources)
    sources = next((sources for version, sources in newer if version == item["new"]), [])
    suites = [suite.partition("/")[0] for _, suite in sources] or [
        suite for suite in item["suites"].split(",") if suite
    ]
    suites.sort(key=lambda suite: not suite.endswith("-security"))  # the security suite first
    size = record.get("Size", "0")
    metadata = {
        "architecture": item["arch"],
        "security": security,
        "suites": list(dict.fromkeys(suites)),
        "source_package": record.get("Source", base).partition(" ")[0],
        "section": record.get("Section", ""),
        "held": name in held or base in held,
    }
    if base in changelogs:
        metadata["changelog"] = changelogs[base]
    if record.get("Homepage"):
        metadata["homepage"] = record["Homepage"]
    return Update(
        package_type="apt",
        package_name=name,
        current_version=item["old"],
        available_version=item["new"],
        severity="important" if security else "moderate",
        package_description=record.get("Description") or record.get("Description-en", ""),
        repository_source=suites[0] if suites else "",
        size_bytes=int(size) if size.isdigit() else 0,
        metadata=metadata,
    )


def _must(run: Run, argv: List[str], failure: str) -> Completed:
    done = _ended(run(argv, keep=_KEEP_ALL), failure)
    if done.stdout_bytes is not None:
        raise ProgramFailed(f"{failure}: the output of {argv[0]} is too long to be read as a whole.", done)
    return done


def _ended(done: Completed, failure: str) -> Completed:
    if done.ok:
        return done
    errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
    reason = " ".join(errors)[:500] or done.stderr.strip()[-500:] or f"exit code {done.exit_code}"
    raise ProgramFailed(f"{failure}: {reason}", done)
