"""The exit codes of `redflag`, and which error of the tree gives which. THE table; the documentation is held against it."""

from __future__ import annotations

import enum

from redflag import errors


class ServerUnreachable(errors.RedFlagError):
    """Nothing answers at the server's address, or what answers is no RedFlag server."""


class ServerFailed(errors.RedFlagError):
    """The server answered that it failed on the request."""


class NeedsAttention(errors.RedFlagError):
    """What was asked works, and what it found needs somebody to act."""


class ExitCode(enum.IntEnum):
    """What a program can tell from the exit code."""

    OK = 0
    FAILED = 1
    USAGE = 2  # the command line, a setting or a value is wrong
    NOT_FOUND = 3
    NOT_PERMITTED = 4  # no token, a wrong one, or one that may not do this
    CONFLICT = 5  # the thing is in a state that does not allow it
    UNAVAILABLE = 6  # the server or the database does not answer, or has no time now: try again later
    ATTENTION = 7  # `doctor`, `status`: it works, and something needs attention
    INTERRUPTED = 130


TABLE: dict[type[errors.RedFlagError], ExitCode] = {
    errors.RedFlagError: ExitCode.FAILED,
    errors.SettingsError: ExitCode.USAGE,
    errors.InvalidInput: ExitCode.USAGE,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.NotAuthenticated: ExitCode.NOT_PERMITTED,
    errors.NotPermitted: ExitCode.NOT_PERMITTED,
    errors.Conflict: ExitCode.CONFLICT,
    errors.RateLimited: ExitCode.UNAVAILABLE,
    errors.Overloaded: ExitCode.UNAVAILABLE,
    errors.DatabaseUnreachable: ExitCode.UNAVAILABLE,
    ServerUnreachable: ExitCode.UNAVAILABLE,
    NeedsAttention: ExitCode.ATTENTION,
}


def exit_code(error: errors.RedFlagError) -> ExitCode:
    """The code of an error: that of the nearest class in the table."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
