"""`redflag service`: the server as a service of systemd, shut in as far as it can work.

Writes one file, the unit; starts nothing and makes no user: it says what to type next.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from redflag.cli import databases, output
from redflag.errors import Conflict, InvalidInput, NotFound, NotPermitted
from redflag.settings import settings

app = typer.Typer(no_args_is_help=True, help="Run the server as a service of systemd.")

TEMPLATE = Path(__file__).with_name("redflag.service")
UNIT = "redflag.service"
MARK = "# The RedFlag server as a service of systemd."
ENVIRONMENT_FILE = "/etc/redflag/redflag.env"

User = Annotated[str, typer.Option(help="Who runs the server and its database; not root.")]
Folder = Annotated[Path, typer.Option("--var", help="The data folder; it belongs to that user.")]
UnitDir = Annotated[Path, typer.Option(help="Where units of systemd lie.")]

DEFAULT_USER = "redflag"
DEFAULT_VAR = Path("/var/lib/redflag")
DEFAULT_UNITS = Path("/etc/systemd/system")


@app.command("print")
def print_unit(user: User = DEFAULT_USER, var: Folder = DEFAULT_VAR) -> None:
    """Show the unit."""
    sys.stdout.write(unit(user, var))


@app.command()
def install(user: User = DEFAULT_USER, var: Folder = DEFAULT_VAR, unit_dir: UnitDir = DEFAULT_UNITS) -> None:
    """Write the unit, and say what to do next."""
    file = unit_dir / UNIT
    text = unit(user, var)
    if file.exists() and not file.read_text().startswith(MARK):
        raise Conflict(f"{file} is there and was not made by `redflag service install`", "Move it away first")
    try:
        file.write_text(text)
    except PermissionError:
        raise NotPermitted(f"{file} cannot be written by {_name(os.geteuid())}", "Run this with sudo") from None
    except FileNotFoundError:
        raise NotFound(f"There is no folder {unit_dir}", "Give --unit-dir, or use a machine with systemd") from None
    file.chmod(0o644)
    output.say(f"Wrote {file}. Next, as root:")
    for step in steps(user, var):
        output.say(f"  {step}")


@app.command()
def uninstall(unit_dir: UnitDir = DEFAULT_UNITS) -> None:
    """Remove the unit. The data folder stays."""
    file = unit_dir / UNIT
    if not file.exists():
        raise NotFound(f"There is no {file}", "Nothing was installed there")
    if not file.read_text().startswith(MARK):
        raise Conflict(f"{file} was not made by `redflag service install`", "Remove it by hand")
    file.unlink()
    output.say(f"Removed {file}. Next, as root:")
    output.say("  systemctl disable --now redflag; systemctl daemon-reload")


def unit(user: str, var: Path) -> str:
    """The unit's text. Raises InvalidInput for what cannot stand in one."""
    if user in {"root", "0"}:
        raise InvalidInput("The service does not run as root", f"Give --user, such as {DEFAULT_USER}")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        raise InvalidInput(f"{user!r} is no name of a user", f"Give --user, such as {DEFAULT_USER}")
    folder, python = var.expanduser().absolute(), Path(sys.executable)
    for path in (folder, python):
        if not re.fullmatch(r"[\w./+@:,=-]+", str(path)):
            raise InvalidInput(f"{path} holds a character that a unit cannot", "Choose a plainer path")
    here = settings().model_copy(update={"var": folder})
    socket = databases.embedded(here).socket_folder if here.embedded else folder
    inside = socket.is_relative_to(folder)
    at_home = any(path.is_relative_to(home) for path in (folder, python) for home in ("/home", "/root", "/run/user"))
    values = {
        "USER": user,
        "GROUP": _group(user),
        "VAR": str(folder),
        "PYTHON": str(python),
        "ENVIRONMENT_FILE": ENVIRONMENT_FILE,
        # What stands in ReadWritePaths stays writable
        "PROTECT_HOME": "read-only" if at_home else "yes",
        "CAPABILITIES": "CAP_NET_BIND_SERVICE" if here.port < 1024 else "",
        "PRIVATE_TMP": "yes" if inside else "no",
        "SOCKET_FOLDER": str(folder) if inside else "/tmp",  # noqa: S108 - where the embedded database puts its socket
    }
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], TEMPLATE.read_text())


def steps(user: str, var: Path) -> list[str]:
    """What is left to do, each a command."""
    folder = var.expanduser().absolute()
    redflag = Path(sys.executable).with_name("redflag")
    as_user = f"runuser -u {user} -- env REDFLAG_VAR={folder} {redflag}"
    todo = []
    if not _known(user):
        todo.append(f"useradd --system --user-group --home-dir {folder} --shell /usr/sbin/nologin {user}")
    if not folder.is_dir() or folder.owner() != user:
        todo.append(f"install -d -o {user} -g {_group(user)} -m 0700 {folder}")
    if not (folder / "cli-token").exists():
        todo.append(f"{as_user} up --no-agent      # shows the administrator's password, once")
        todo.append(f"{as_user} down")
    return [*todo, "systemctl daemon-reload", "systemctl enable --now redflag", "systemctl status redflag"]


def _known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _group(user: str) -> str:
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
