"""The one tree of errors. Each says what happened, to what, and what to do next; a user never sees a traceback.

RedFlagError
├── SettingsError           a setting is missing or contradicts another
├── ProcessError            a background process did not start, or did not stop
├── DatabaseError
│   ├── DatabaseTooOld      PostgreSQL older than 18
│   ├── EmbeddedDatabaseError
│   ├── DatabaseUnreachable
│   └── MigrationError      a migration failed, or an applied file has changed
├── NotFound                nothing there has this id, or it is not yours
├── Conflict                the thing is in a state that does not allow it
├── InvalidInput            the request itself is wrong
│   └── TooLarge            its body is larger than this server takes
├── NotAuthenticated        no token, or one that is not valid
├── NotPermitted            known, but the role does not allow it
├── RateLimited             too many tries; `retry_after` says when to come back
└── Overloaded              the server has all it can do; `retry_after` says when to come back
"""

from __future__ import annotations

import random


class RedFlagError(Exception):
    """Base of every error that this project raises on purpose."""

    def __init__(self, what: str, next_step: str = "") -> None:
        self.what = what.rstrip(".")
        self.next_step = next_step.rstrip(".")
        super().__init__(str(self))

    def __str__(self) -> str:
        return ". ".join(part for part in (self.what, self.next_step) if part) + "."


class SettingsError(RedFlagError):
    """A setting is missing or contradicts another."""


class ProcessError(RedFlagError):
    """A background process did not start, or did not stop."""


class DatabaseError(RedFlagError):
    """The database cannot be used as it is."""


class DatabaseTooOld(DatabaseError):
    """The server is older than PostgreSQL 18."""


class EmbeddedDatabaseError(DatabaseError):
    """The embedded PostgreSQL could not be made, started or stopped."""


class DatabaseUnreachable(DatabaseError):
    """Nothing answers at the database's address."""


class MigrationError(DatabaseError):
    """A migration failed, or a file that was applied has changed."""


class NotFound(RedFlagError):
    """Nothing has this id, or it belongs to somebody else."""


class Conflict(RedFlagError):
    """The thing is in a state that does not allow this."""


class InvalidInput(RedFlagError):
    """The request itself is wrong."""


class TooLarge(InvalidInput):
    """The request's body is larger than this server takes."""


class NotAuthenticated(RedFlagError):
    """No token, or one that is not valid (any more)."""


class NotPermitted(RedFlagError):
    """Known, but the role does not allow it."""


class RateLimited(RedFlagError):
    """Too many tries."""

    def __init__(self, what: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(what, f"Try again in {retry_after} s")


class Overloaded(RedFlagError):
    """The server has as much under way as it can carry. `retry_after` (seconds) differs from caller to caller, so that they do
    not all come back at once."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "Try again a little later")
        self.retry_after = random.randint(5, 30)  # noqa: S311 - spread, not secret
