"""`redflag doctor`: is everything as it should be, and what to do where it is not.

It asks the server, and where the data folder is readable also the database, as the server's own role; it changes nothing.
What it thinks of what it finds is in `checks`. What it could not examine it says, and takes for no fault.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import resource
import shutil
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from redflag import words
from redflag.alerts import faults, metrics, rules
from redflag.audit import sequencer
from redflag.cli import checks, client, databases, reopen
from redflag.cli.checks import Check, Verdict
from redflag.cli.client import Client
from redflag.cli.exits import NeedsAttention
from redflag.cli.output import AsJson, print_json, progress, say
from redflag.cli.place import Place, place
from redflag.database import migrate, queries
from redflag.errors import NotPermitted, RedFlagError
from redflag.fleet import agents
from redflag.settings import Settings, settings
from redflag.timeouts import sweeper

sql = queries.load(__file__, "doctor.sql")

_STYLE = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red", Verdict.NOT_CHECKED: "dim"}
_NEEDS_FOLDER = "it needs the database, and thus the server's data folder"


@dataclass
class Found:
    """What was found out, from the database or from the server; what nobody could tell is absent, and `why_not` says why."""

    facts: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    why_not: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Examine everything: ok, warning or failed, what was found, and the next step. Exit code 7 if something needs attention."""
    here = settings()
    folder = place(here)
    with progress("Examining"):
        found = _examine(here, folder)
    verdict = checks.worst(found)
    if as_json:
        print_json({"verdict": verdict, "checks": [check.as_json() for check in found]})
    else:
        _print(found)
    if verdict != Verdict.OK:
        count = sum(check.verdict in {Verdict.FAILED, Verdict.WARNING} for check in found)
        raise NeedsAttention(
            f"{words.count(count, 'check needs', 'checks need')} attention", "Take the next steps above"
        )


def _examine(here: Settings, folder: Place) -> list[Check]:
    url = client.options.url or client.own_url(here, folder)
    is_ours = url in {client.own_url(here, folder), client.local_url(here), here.url}
    told = _ask_server(url, here)
    seen = (
        _ask_database(here)
        if is_ours
        else Found(checks=[checks.not_checked("database", f"{url} is the server of another data folder")])
    )
    facts = told.facts | seen.facts
    judged = [*told.checks, *seen.checks, *_judge(facts, seen.why_not)]
    return [*judged, *(_local(here, folder, facts) if is_ours else [])]


def _judge(facts: dict[str, Any], why_not: str) -> list[Check]:
    """The checks that work on facts, wherever these came from."""

    def of(name: str, title: str, judge: Any, why: str = _NEEDS_FOLDER) -> list[Check]:
        if name not in facts:
            return [checks.not_checked(title, why_not or why)]
        judged = judge(facts[name])
        return judged if isinstance(judged, list) else [judged]

    away = "neither the server nor the database told"
    return [
        *of("version", "database version", checks.version),
        *of("migrations", "migrations", checks.migrations, away),
        *of("role", "server role", lambda row: checks.role(**row)),
        *of("clock", "clock", lambda skew: checks.clock(*skew), away),
        *of("timeouts", "timeout service", lambda state: checks.sweeper(state, _since_success(state)), away),
        *of("log", "audit log", lambda state: checks.audit_log(state, checks.stopped(facts.get("alerts", []))), away),
        *of("alerts", "alerts", checks.alerts, away),
        *of("refused", "refused records", checks.refused_records, away),
        *of("months_ahead", "partitions", checks.partitions),
        *of("subscriptions", "replication", checks.subscriptions),
    ]


def _ask_server(url: str, here: Settings) -> Found:
    found = Found()
    anonymous = None
    try:
        api = client.connect()
    except RedFlagError as error:
        # Whether it answers needs no token
        anonymous = error
        api = Client(url, "", tls=client.pinned(here.tls_cert) if here.tls_cert else None)
    with api:
        began = time.monotonic()
        try:
            api.get("/healthz")
        except RedFlagError as error:
            found.checks.append(checks.failed("server", error.what, error.next_step or "Start it with `redflag up`"))
            return found
        took = (time.monotonic() - began) * 1000
        found.checks.append(checks.ok("server", f"answers at {url} within {took:.0f} ms, and reaches its database"))
        if anonymous is not None:
            found.checks.append(checks.not_checked("server's own view", anonymous.what, anonymous.next_step))
            return found
        try:
            _ask_status(api, found)
        except RedFlagError as error:
            found.checks.append(
                checks.failed("server's own view", error.what, error.next_step or "Use a token that may")
            )
    return found


def _ask_status(api: Client, found: Found) -> None:
    began = words.now()
    status = api.get("/api/v1/status")
    now = words.now()
    at = datetime.datetime.fromisoformat(status["database_time"])
    found.facts |= {
        "migrations": status["migrations"],
        "timeouts": status["timeouts"],
        "log": status["log"],
        "alerts": status["alerts"],
        "agents": sum(status["agents"].values()),
        "clock": ((now - at).total_seconds(), (now - began).total_seconds()),
    }
    with contextlib.suppress(NotPermitted):  # a viewer's token reads the status and no metrics
        if matched := re.search(r"^redflag_audit_writes_refused_total (\S+)$", api.text("/metrics"), re.MULTILINE):
            found.facts["refused"] = int(float(matched[1]))


def _ask_database(here: Settings) -> Found:
    name = "database"
    try:
        if here.embedded and not databases.embedded(here).running():
            folder = databases.embedded(here).folder
            return Found(
                checks=[checks.failed(name, f"the database in {folder} does not run", "Start it with `redflag up`")]
            )
        return databases.run(_ask_connection(here))
    except PermissionError as error:
        return Found(
            checks=[
                checks.not_checked(name, f"{error.filename} may be read by its owner only", "Run this as that user")
            ]
        )
    except (RedFlagError, asyncpg.PostgresError) as error:
        what, step = (error.what, error.next_step) if isinstance(error, RedFlagError) else (str(error), "")
        return Found(checks=[checks.failed(name, what, step or "See the database's log")])


async def _ask_connection(here: Settings) -> Found:
    found = Found()
    async with databases.connected(databases.server_url(here)) as connection:
        found.checks.append(checks.ok("database", "reachable as the server's role"))
        number = found.facts["version"] = await sql.version.value(connection)
        if number < 180_000:
            found.why_not = "this PostgreSQL is too old"
            return found
        began = words.now()
        at = await sql.clock.value(connection)
        now = words.now()
        found.facts["clock"] = ((now - at).total_seconds(), (now - began).total_seconds())
        states = await migrate.status(connection)
        found.facts["migrations"] = [vars(state) for state in states]
        found.facts["subscriptions"] = [row["subname"] for row in await sql.subscriptions.all(connection)]
        if any(state.state == "pending" for state in states):
            found.why_not = "the schema is not whole"  # what follows would ask for what is not there yet
            return found
        role = await sql.role.one(connection)
        found.facts |= {
            "role": {
                "user": role["name"],
                "superuser": role["superuser"],
                "owner": role["owner"],
                "is_server": role["is_server"],
            },
            "timeouts": await sweeper.status(connection),
            "log": await _ask_log(connection, here),
            "alerts": [
                {"name": one.rule.name, "faults": one.faults, "last_detail": one.last_detail}
                for one in await rules.firing(connection)
            ],
            "refused": await sql.refused.value(connection),
            "months_ahead": await metrics.sql.months_ahead.value(connection),
            "agents": sum((await agents.counts(connection, 60)).values()),
        }
    return found


async def _ask_log(connection: Any, here: Settings) -> dict[str, Any]:
    """How the log stands, by itself and to what this server remembers."""
    found = await sequencer.health(connection) | {"passed_over": await faults.passed_over(connection)}
    with contextlib.suppress(PermissionError):  # then only the server can compare
        try:
            standing = await reopen.standing(connection, here)
            found["why"] = standing.why if standing else ""
        except RedFlagError as error:
            found["why"] = error.what
    return found


def _since_success(timeouts: dict[str, Any]) -> float | None:
    told = [row["seconds_since_success"] for row in timeouts["replicas"] if row["seconds_since_success"] is not None]
    return min(told, default=None)


def _local(here: Settings, folder: Place, facts: dict[str, Any]) -> list[Check]:
    """This machine: disk, file descriptors, permissions."""
    if not folder.root.is_dir():
        why = f"there is no data folder {folder.root}"
        return [
            checks.not_checked(name, why, "Set REDFLAG_VAR to it")
            for name in ("disk", "file descriptors", "permissions")
        ]
    space = shutil.disk_usage(folder.root)
    limit, whose = _descriptors(folder)
    return [
        checks.disk(space.free, space.total, str(folder.root)),
        checks.descriptors(limit, facts.get("agents", 0), whose),
        _permissions(here, folder),
    ]


def _descriptors(folder: Place) -> tuple[int | None, str]:
    """The limit of the server's process, or of this one where none runs."""
    if pid := folder.server_daemon().status():
        try:
            limits = Path(f"/proc/{pid}/limits").read_text()
        except OSError:
            limits = ""
        if matched := re.search(r"^Max open files\s+(\d+|unlimited)", limits, re.MULTILINE):
            return None if matched[1] == "unlimited" else int(matched[1]), "the server"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft, "a server that is started here"


def _permissions(here: Settings, folder: Place) -> Check:
    secret = [path for path in (folder.cli_token, here.tls_key) if path is not None]
    open_to_others: list[tuple[str, int, int]] = []
    examined = 0
    try:
        status = folder.root.stat()
        # Root's may be passed through, not listed: PostgreSQL can run as a user of its own below it (Place.make)
        allowed = 0o711 if here.embedded and status.st_uid == 0 else 0o700
        if (mode := stat.S_IMODE(status.st_mode)) & ~allowed:
            open_to_others.append((str(folder.root), mode, 0o700))
        for below in (here.log_folder, folder.agent, folder.database / "passwords"):
            secret += sorted(below.rglob("*")) if below.is_dir() else []
        for path in [*secret, *folder.root.glob("*.key")]:
            if not path.is_file():
                continue
            examined += 1
            if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
                open_to_others.append((str(path), mode, 0o600))
    except PermissionError as error:
        return checks.not_checked(
            "permissions", f"{error.filename} may be read by its owner only", "Run this as that user"
        )
    return checks.permissions(open_to_others, examined)


def _print(found: list[Check]) -> None:
    width = max(len(check.name) for check in found)
    for check in found:
        if check.verdict != Verdict.NOT_CHECKED:
            _print_line(check.verdict, check.name.ljust(width), check.found, check.next_step)
    # What could not be checked for the same reason stands in one line
    reasons: dict[tuple[str, str], list[str]] = {}
    for check in found:
        if check.verdict == Verdict.NOT_CHECKED:
            reasons.setdefault((check.found, check.next_step), []).append(check.name)
    for (why, step), names in reasons.items():
        _print_line(Verdict.NOT_CHECKED, ", ".join(names), why, step)


def _print_line(verdict: Verdict, name: str, told: str, step: str) -> None:
    say(f"{verdict:<11}  {name}  {told}", _STYLE[verdict])
    if step and verdict != Verdict.OK:
        say(f"{' ' * 13}→ {step}.")
