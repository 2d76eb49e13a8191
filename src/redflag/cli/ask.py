"""What the commands ask a person: a yes before what cannot be taken back, and a password."""

from __future__ import annotations

import getpass
import sys

import typer

from redflag.errors import InvalidInput


def confirm(question: str, yes: bool) -> None:
    """Goes on after a yes, of the person or of --yes. Raises InvalidInput where nobody can be asked, Abort after a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput(f"{question.rstrip('?')} needs a yes, and nobody can be asked here", "Add --yes")
    typer.confirm(question, abort=True, err=True)


def password(from_stdin: bool, whose: str) -> str:
    """A new password: the first line of stdin, or typed twice unseen. Raises InvalidInput when there is none."""
    if from_stdin:
        given = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        given = getpass.getpass(f"New password of {whose}: ", sys.stderr)
        if getpass.getpass("The same again: ", sys.stderr) != given:
            raise InvalidInput("The two passwords differ", "Try again")
    else:
        raise InvalidInput("There is no terminal to type a password at", "Pipe it in and add --password-stdin")
    if not given:
        raise InvalidInput("The password is empty", "Give one")
    return given
