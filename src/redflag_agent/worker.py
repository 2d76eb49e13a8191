"""Runs the commands of the journal, one after the other, and tells the server of their progress.

Promises: a command starts only after the server said, at that moment, that it is live, and after the journal says
`started`; its outcome is in the journal before anything is posted. A command that the server has ended is not started,
or its process group is killed. While the server cannot be asked, commands wait. A command that is cut short because
the agent stops stays `started`: at the next start `recover` reports it as failed, or, a reboot, as done if the boot id
has changed.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Dict, Iterable, Mapping, Optional, Set

from redflag_agent import commands, facts
from redflag_agent.api import Api, back_off
from redflag_agent.client import FINAL_STATUSES, Json
from redflag_agent.commands import IMMEDIATE, UNKNOWN_END
from redflag_agent.errors import ServerRefused, ServerUnreachable
from redflag_agent.files import utc_now
from redflag_agent.journal import Entry, Journal
from redflag_agent.log import logger
from redflag_agent.runner import Deadline
from redflag_agent.sender import Sender
from redflag_agent.task import Handler, Host, Outcome, Task, failed

DEFAULT_DEADLINE = 7200.0  # seconds, for a server that says "live" without saying for how long


class Worker:
    """Runs commands. `loop` has a thread of its own; the other methods may be called from any."""

    def __init__(self, api: Api, journal: Journal, sender: Sender, host: Host, handlers: Mapping[str, Handler]) -> None:
        self._api = api
        self._journal = journal
        self._sender = sender
        self._host = host
        self._handlers = handlers
        self._lock = threading.Lock()
        self._claimed: Set[str] = set()
        self._running: Dict[str, Task] = {}
        self._wake = threading.Event()
        self._stopping = False

    def recover(self) -> None:
        """Report what an earlier run of the agent left without a result."""
        now = facts.boot_id()
        for entry in self._journal.in_state("started"):
            if entry.type == "reboot" and entry.boot_id and now and entry.boot_id != now:
                outcome = Outcome("success", "the host has restarted", action="reboot")
            else:
                outcome = failed(UNKNOWN_END, entry.type)
                outcome.exit_code = -1
            self._finish(entry, outcome, entry.started_at or entry.at, 0.0)

    def loop(self) -> None:
        """Run the waiting commands until stopped."""
        failures = 0
        while not self._stopping:
            entry = self._next()
            if entry is None:
                failures = 0
                self._pause(None)
            elif self.execute(entry):
                failures = 0
            else:
                failures += 1
                self._pause(back_off(failures, most=60.0))

    def accept(self, entries: Iterable[Entry]) -> None:
        """Take new commands: the refused and the immediate ones are done with here, the others wait for the worker."""
        for entry in entries:
            if entry.type in IMMEDIATE or commands.refusal(entry.type, self._host.config, self._handlers):
                self.execute(entry)
        self._wake.set()

    def execute(self, entry: Entry) -> bool:
        """Run one command to its end; False if the server could not be asked whether it may start."""
        with self._lock:
            if entry.id in self._claimed or entry.state != "received":
                return True
            self._claimed.add(entry.id)
        try:
            return self._execute(entry)
        finally:
            with self._lock:
                self._claimed.discard(entry.id)
                self._running.pop(entry.id, None)

    def progress(self, *, if_running: bool = False) -> None:
        """Tell the server what waits and what runs, and apply its answer; with `if_running`, only if something runs."""
        body = self._progress()
        if body["running"] or not if_running:
            self._apply(self._api.post("progress", body))

    def end(self, ids: Iterable[object]) -> None:
        """Apply the server's word that commands are live no more."""
        for command_id in ids:
            if not isinstance(command_id, str):
                continue
            with self._lock:
                task = self._running.get(command_id)
                entry = self._journal.get(command_id)
                waits = entry is not None and entry.state == "received" and command_id not in self._claimed
                if waits:
                    self._journal.ended(command_id, "ended by the server before it was started")
            if task is not None:
                task.stop.set("ended")
            elif waits:
                logger.info("command %s was ended by the server before it was started", command_id)

    def stop(self) -> None:
        """Start nothing more."""
        self._stopping = True
        self._wake.set()

    def cut_short(self) -> None:
        """End what runs, because the agent stops."""
        with self._lock:
            for task in self._running.values():
                task.stop.set("stopping")

    def _next(self) -> Optional[Entry]:
        with self._lock:
            return next((entry for entry in self._journal.in_state("received") if entry.id not in self._claimed), None)

    def _pause(self, seconds: Optional[float]) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _execute(self, entry: Entry) -> bool:
        refusal = commands.refusal(entry.type, self._host.config, self._handlers)
        if refusal is not None:
            self._finish(entry, failed(refusal, entry.type), utc_now(), 0.0)
            return True
        try:
            answer = self._api.post("progress", self._progress(starting=entry.id))
        except (ServerRefused, ServerUnreachable) as error:
            if isinstance(error, ServerRefused) and error.status in FINAL_STATUSES:
                self._finish(entry, failed(f"not started: {error}", entry.type), utc_now(), 0.0)
                return True
            logger.warning("command %s waits: %s", entry.id, error)
            return False
        self._apply(answer)
        live = answer.get("live")
        if not isinstance(live, dict) or entry.id not in live:
            self._journal.ended(entry.id, "not live when it was to start")
            logger.info("command %s is live no more and was not started", entry.id)
            return True
        remaining = _seconds(live[entry.id])
        task = Task(
            entry.id,
            entry.type,
            entry.params,
            self._host,
            Deadline(DEFAULT_DEADLINE if remaining is None else remaining),
        )
        with self._lock:
            if self._stopping:
                return False
            self._running[entry.id] = task
        self._run(entry, task)
        return True

    def _run(self, entry: Entry, task: Task) -> None:
        started_at, begin = utc_now(), time.monotonic()
        self._journal.started(entry.id, facts.boot_id())
        logger.info(
            "command %s (%s) starts, %.0f s until its deadline", entry.id, entry.type, task.deadline.remaining()
        )
        outcome = commands.execute(task, self._handlers)
        if outcome is None:
            logger.warning("command %s was cut short because the agent stops", entry.id)
        else:
            self._finish(entry, outcome, started_at, time.monotonic() - begin)

    def _finish(self, entry: Entry, outcome: Outcome, started_at: str, duration: float) -> None:
        self._journal.finished(entry.id, outcome.reports(entry.id, started_at, utc_now(), duration))
        logger.info("command %s (%s): %s, %s", entry.id, entry.type, outcome.result, outcome.message[:300])
        self._sender.wake()

    def _progress(self, starting: str = "") -> Json:
        with self._lock:
            tasks = list(self._running.values())
            waiting = [entry.id for entry in self._journal.in_state("received") if entry.id not in self._claimed]
        return {
            "received": waiting,
            "running": [task.id for task in tasks] + ([starting] if starting else []),
            "progress": [{"command_id": task.id, "message": task.message} for task in tasks if task.message],
        }

    def _apply(self, answer: Json) -> None:
        live = answer.get("live")
        with self._lock:
            for command_id, task in self._running.items():
                remaining = _seconds(live.get(command_id)) if isinstance(live, dict) else None
                if remaining is not None:
                    task.deadline.set(remaining)
        ended = answer.get("ended")
        self.end(ended if isinstance(ended, list) else [])


def _seconds(value: object) -> Optional[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return float(min(max(value, -1.0), 1e9))
