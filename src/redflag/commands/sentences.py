"""Records as sentences: what happened, and who did it. Used by `redflag history` and `redflag commands show`."""

from __future__ import annotations

from typing import Any

from redflag import words
from redflag.commands.states import Kind, Result

_ENDS = {
    Result.SUCCESS: "succeeded",
    Result.PARTIAL: "succeeded in part",
    Result.FAILED: "failed",
    Result.ERROR: "failed with an error",
    Result.CANCELLED: "was cancelled",
}
_ACCESSES = {
    "login": "logged in",
    "logout": "logged out",
    "history_read": "read the history",
    "audit_exported": "exported the audit trail",
}
_STARTS = {
    Result.PENDING: "was enqueued",
    Result.SENT: "was handed to the agent",
    Result.RUNNING: "was started by the agent",
}


def what(event: dict[str, Any]) -> str:
    """What a record says happened, in one sentence without its time and without who."""
    kind, message = event["kind"], _one_line(event.get("message"))
    subject = event.get("command_type") or "a command"
    if kind == Kind.TRANSITION:
        return f"{subject} {_transition(event, message)}"
    if kind == Kind.LATE_RESULT:
        return f"{subject} {message}"
    told = message or str(event.get("action") or kind).replace("_", " ")
    if kind == Kind.ACCESS and event.get("action"):
        action = str(event["action"])
        told = _ACCESSES.get(action, action.replace("_", " ")) + (f": {message}" if message else "")
    return f"refused: {told}" if event["result"] == Result.DENIED else told


def _transition(event: dict[str, Any], message: str) -> str:
    result, metadata = event["result"], event.get("metadata") or {}
    if result == Result.TIMED_OUT:
        return (message or "timed out") + _detected(metadata)
    if result in _STARTS:
        # With words of its own it is not the first time: taken back, handed out again, parameters changed
        again = metadata.get("retried_from_id")
        told = message or _STARTS[Result(result)]
        return told + (f" again, as a retry of {again}" if again and not message else "")
    took = event.get("duration_seconds")
    code = event.get("exit_code")
    told = _ENDS.get(result, str(result))
    if took:
        told += f" after {words.length(float(took))}"
    if code and result != Result.CANCELLED:
        told += f" (exit code {code})"
    return told + (f": {message}" if message else "")


def _detected(metadata: dict[str, Any]) -> str:
    """Who found a timeout, and how long after its deadline, as far as its record says."""
    by, late = metadata.get("detected_by"), metadata.get("lateness_ms")
    told = f"; detected by {by.rpartition('@')[2]}" if isinstance(by, str) and by else ""
    if isinstance(late, int | float) and not isinstance(late, bool):
        told += (", " if told else "; ") + f"{words.length(late / 1000)} late"
    return told


def who(event: dict[str, Any]) -> str:
    """Who did it, in words: a person's name, an agent's id, a part of the server."""
    return actor(str(event["actor"]))


def actor(name: str) -> str:
    """An actor of the record in words: user:anna is anna, db:postgres is postgres in the database."""
    kind, _, rest = name.partition(":")
    if kind == "user":
        return rest
    if kind == "service":
        part, _, host = rest.partition("@")
        return f"{part} service on {host}" if host else f"{part} service"
    known = {"token": "token {}", "agent": "agent {}", "db": "{} in the database"}
    return known[kind].format(rest) if kind in known else name


def style(result: str) -> str:
    """The colour of a result: green is good, red is bad, yellow is unfinished."""
    if result in {Result.SUCCESS, "completed"}:
        return "green"
    if result in {Result.FAILED, Result.ERROR, Result.TIMED_OUT, Result.DENIED}:
        return "red"
    return "yellow" if result in {Result.PARTIAL, Result.CANCELLED} else ""


def _one_line(text: Any) -> str:
    return " ".join(str(text or "").split())
