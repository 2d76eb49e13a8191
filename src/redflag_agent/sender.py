"""Sends finished results from the journal until the server has given a final answer to each.

Promises: the calls of one command go out in order, its logs call last; a result leaves the spool only when the server
answered 200 or refused it for good. Everything else (429, 5xx, network errors, a token that cannot be renewed) is
tried again with exponential back-off, at most 5 min apart or as long as Retry-After asks. A crash in between repeats
calls, which the server takes once.
"""

from __future__ import annotations

import threading
import time
from typing import Dict, List

from redflag_agent.api import Api, back_off
from redflag_agent.client import FINAL_STATUSES, Json
from redflag_agent.errors import ServerRefused, ServerUnreachable
from redflag_agent.journal import Entry, Journal
from redflag_agent.log import logger

IDLE = 3600.0


class _Attempt:
    """Where the sending of one command stands: lost in a crash, which costs a repetition."""

    def __init__(self) -> None:
        self.failures = 0
        self.due = 0.0
        self.position = 0
        self.refused: List[str] = []


class Sender:
    """Sends what the journal holds as finished."""

    def __init__(self, api: Api, journal: Journal) -> None:
        self._api = api
        self._journal = journal
        self._wake = threading.Event()
        self._attempts: Dict[str, _Attempt] = {}
        self._not_before = 0.0
        self._retry_all = False
        self._stopping = False

    def wake(self, *, server_is_back: bool = False) -> None:
        """Look at the journal now; with `server_is_back`, without waiting for the end of a back-off."""
        self._retry_all = self._retry_all or server_is_back
        self._wake.set()

    def stop(self) -> None:
        """End `loop` after one last round."""
        self._stopping = True
        self._wake.set()

    def loop(self) -> None:
        """Send until stopped."""
        while not self._stopping:
            self._wake.wait(self.send_due())
            self._wake.clear()
        self.send_due()

    def send_due(self) -> float:
        """Try every result that is due; the seconds until the next one is."""
        if self._retry_all:
            self._retry_all = False
            for attempt in self._attempts.values():
                attempt.due = 0.0
        due = [IDLE]
        for entry in self._journal.in_state("finished"):
            attempt = self._attempts.setdefault(entry.id, _Attempt())
            when = max(attempt.due, self._not_before)
            if when <= time.monotonic():
                if self._send(entry, attempt):
                    del self._attempts[entry.id]
                    continue
                when = max(attempt.due, self._not_before)
            due.append(max(when - time.monotonic(), 0.0))
        return min(due)

    def _send(self, entry: Entry, attempt: _Attempt) -> bool:
        """Make the remaining calls of one command; whether the server has given its final answer."""
        while True:
            call, body = entry.posts[attempt.position]
            is_last = attempt.position == len(entry.posts) - 1
            try:
                answer = self._api.post(call, _amended(body, attempt.refused) if is_last else body)
            except ServerRefused as refused:
                if refused.status not in FINAL_STATUSES:
                    self._put_off(entry, attempt, refused)
                    return False
                logger.warning("%s of command %s: %s", call, entry.id, refused)
                if is_last:
                    self._journal.reported(entry.id, refused.status, str(refused))
                    return True
                # The protocol lets a server go without system-info; the rest is what the command was for.
                if not (call == "system-info" and refused.status == 404):
                    attempt.refused.append(f"{call}: {refused}")
            except ServerUnreachable as error:
                self._put_off(entry, attempt, error)
                return False
            else:
                self._note(entry, call, answer)
                if is_last:
                    self._journal.reported(entry.id, 200, str(answer.get("status", "")))
                    return True
            attempt.position += 1
            attempt.failures = 0

    def _put_off(self, entry: Entry, attempt: _Attempt, error: Exception) -> None:
        attempt.failures += 1
        retry_after = error.retry_after if isinstance(error, ServerRefused) else None
        delay = back_off(attempt.failures, retry_after=retry_after)
        attempt.due = time.monotonic() + delay
        if retry_after:
            self._not_before = max(self._not_before, time.monotonic() + retry_after)
        logger.warning("the result of command %s waits %.0f s: %s", entry.id, delay, error)

    def _note(self, entry: Entry, call: str, answer: Json) -> None:
        if answer.get("rejected"):
            logger.warning(
                "the server rejected parts of %s of command %s: %s", call, entry.id, str(answer["rejected"])[:500]
            )
        if call == "logs":
            logger.info("command %s is reported (%s)", entry.id, str(answer.get("status", "200"))[:40])


def _amended(body: Json, refused: List[str]) -> Json:
    """The logs call of a command whose other calls were refused: it did not do what it was for."""
    if not refused:
        return body
    return dict(
        body, result="failed", message=f"{body.get('message', '')}; the server refused {'; '.join(refused)}"[:2000]
    )
