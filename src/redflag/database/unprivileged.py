"""As whom PostgreSQL runs: it refuses to be started by root.

Owns the choice of the account and nothing else. An ordinary user runs PostgreSQL as himself. For root there are two
ways:

1. A user namespace (`unshare --user`): to the file system the process is still root's, and so reaches what root owns,
   but it has no privileges and sees itself as an ordinary user. Needs no new user and changes no file's owner.
2. Where namespaces are forbidden (many containers): the system user `redflag-postgres`, made when missing, which then
   owns the database's folder. A folder that it owns already stays with it.

Permissions outside the database's folder are never changed. When the chosen account may not enter a folder above, the
answer is an EmbeddedDatabaseError that names that folder, raised before anything was changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redflag.errors import EmbeddedDatabaseError

SERVICE_USER = "redflag-postgres"
_NAMESPACE_UID = 1000
_FIRST_CLOSED_DOOR = 'for path; do [ -x "$path" ] || { echo "$path"; exit 1; }; done'


@dataclass(frozen=True)
class Account:
    """How to start a program so that PostgreSQL accepts it. `uid` and `gid` are None where they stay as they are."""

    name: str
    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    def run(self, argv: Sequence[str], env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, from the folder `/`, and return its exit code and output. Timeout in seconds."""
        try:
            return subprocess.run(
                [*self.prefix, *argv],
                env=dict(env),
                cwd="/",  # the account may not be allowed to enter the caller's folder
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else [],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EmbeddedDatabaseError(
                f"{argv[0]} took longer than {timeout:.0f} s", "See the database's log and the load of the machine"
            ) from error

    def give(self, path: Path) -> None:
        """Make the account the owner of one file or folder of ours; a link is never followed."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def account_for(folder: Path, program: Path) -> Account:
    """The account that runs `program` on the database in `folder`, which must exist; it owns the folder afterwards."""
    me, owner = os.geteuid(), folder.stat().st_uid
    if me != 0:
        if owner != me:
            raise _foreign(folder, owner)
        return Account(pwd_name(me))
    if owner == 0 and (account := _namespace()) is not None:
        _require_reach(account, folder, program)
        return account
    if owner != 0 and pwd_name(owner) != SERVICE_USER:
        # Acting as root in another user's folder would let that user's links lead root anywhere.
        raise _foreign(folder, owner)
    account = _service_account()
    _require_reach(account, folder.parent, program)
    if owner == 0:
        account.give(folder)
        for parent, folders, files in os.walk(folder):
            for name in folders + files:
                account.give(Path(parent, name))
    return account


def pwd_name(uid: int) -> str:
    """A user's name, or the number where the machine knows none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _namespace() -> Account | None:
    """Root without privileges, in a user namespace; None where the machine does not allow it."""
    users = {user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0}
    if shutil.which("unshare") is None or not users:
        return None
    # initdb looks its user up by name and refuses one that the machine does not know.
    uid = _NAMESPACE_UID if _NAMESPACE_UID in users else min(users)
    account = Account(
        f"root in a user namespace, as {pwd_name(uid)}",
        prefix=("unshare", "--user", f"--map-user={uid}", f"--map-group={_NAMESPACE_UID}", "--"),
    )
    try:
        probe = account.run(["id", "-u"], {"PATH": os.environ.get("PATH", os.defpath)}, timeout=30)
    except OSError:
        return None
    return account if probe.returncode == 0 and probe.stdout.strip() == str(uid) else None


def _service_account() -> Account:
    if not _known(SERVICE_USER):
        useradd = [
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
            SERVICE_USER,
        ]
        try:
            made = subprocess.run(useradd, capture_output=True, text=True, timeout=60, check=False)
            reason = made.stderr.strip()
        except OSError as error:
            reason = str(error)
        if not _known(SERVICE_USER):
            raise EmbeddedDatabaseError(
                f"PostgreSQL refuses to run as root, this machine allows no user namespaces, and the system user "
                f"{SERVICE_USER} could not be made: {reason}",
                "Start as an ordinary user, or use a PostgreSQL of your own (REDFLAG_DATABASE_URL)",
            )
    user = pwd.getpwnam(SERVICE_USER)
    return Account(SERVICE_USER, uid=user.pw_uid, gid=user.pw_gid)


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _require_reach(account: Account, *paths: Path) -> None:
    """Ask the kernel, as the account itself, for the first folder on the way to the paths that it may not enter."""
    doors = [str(door) for path in paths for door in (*reversed(path.parents), path)]
    asked = account.run(
        ["/bin/sh", "-c", _FIRST_CLOSED_DOOR, "sh", *doors], {"PATH": os.environ.get("PATH", os.defpath)}, timeout=30
    )
    if asked.returncode != 0:
        door = asked.stdout.strip() or asked.stderr.strip()
        raise EmbeddedDatabaseError(
            f"PostgreSQL refuses to run as root, and the account used instead ({account.name}) may not enter {door}",
            "Start as the user who owns that folder, or install below a folder that root owns and others may enter, "
            "such as /opt or /var/lib; its permissions were left as they are",
        )


def _foreign(folder: Path, owner: int) -> EmbeddedDatabaseError:
    return EmbeddedDatabaseError(
        f"The database's folder {folder} belongs to {pwd_name(owner)}", f"Run this as {pwd_name(owner)}"
    )
