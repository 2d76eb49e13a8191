"""The running agent: its threads, its check-ins, its start and its end.

Four threads share the journal: check-ins, the worker, the sender, and the progress of what runs. Promises: new
commands are in the journal before the server is told that they arrived; one agent per state directory; `stop` ends the
agent within about 30 s with nothing lost: a command that runs has 10 s to finish, then its process group is ended and
it stays `started` in the journal. A failure of the server is logged and tried again for ever; a failure of the
journal, or a fault of the agent, ends the agent with that error.
"""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional

from redflag_agent import __version__, facts, packages
from redflag_agent.api import Api, back_off, jitter
from redflag_agent.client import Json
from redflag_agent.commands import HANDLERS
from redflag_agent.config import Config, clean_interval, is_uuid
from redflag_agent.errors import AgentError, ServerRefused, ServerUnreachable
from redflag_agent.files import StateLock, utc_now, write_private
from redflag_agent.journal import Entry, Journal
from redflag_agent.log import logger
from redflag_agent.sender import Sender
from redflag_agent.task import Handler, Host
from redflag_agent.witness import LOOK_EVERY, Witness
from redflag_agent.worker import Worker

STATUS_NAME = "status.json"
RAPID_INTERVAL = 5.0
PROGRESS_EVERY = 20.0  # the protocol allows 30; a call may take a while
INFO_EVERY = 3600.0
STOP_GRACE = 10.0
MAX_WAIT = 300
MAX_COMMANDS = 100
_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Agent:
    """One enrolled agent on its state directory. `run` returns when `stop` was called."""

    def __init__(
        self,
        directory: Path,
        config: Config,
        *,
        handlers: Mapping[str, Handler] = HANDLERS,
        open_journal: Callable[[Path], Journal] = Journal,
        progress_every: float = PROGRESS_EVERY,
        rapid_interval: float = RAPID_INTERVAL,
        stop_grace: float = STOP_GRACE,
        look_every: float = LOOK_EVERY,
    ) -> None:
        self._directory = directory
        self._api = Api(directory, config)
        self._lock = StateLock(directory)
        try:
            self._journal = open_journal(directory)
        except BaseException:
            self._lock.release()
            raise
        self._sender = Sender(self._api, self._journal)
        host = Host(config, packages.available(), self._set_rapid)
        self._witness = Witness(directory, self._api, every=look_every)
        self._worker = Worker(self._api, self._journal, self._sender, host, handlers)
        self._progress_every = progress_every
        self._rapid_interval = rapid_interval
        self._stop_grace = stop_grace
        self._stop = threading.Event()
        self._stop_asked = False
        self._failure: Optional[Exception] = None
        self._rapid_until = 0.0
        self._rapid_minutes = 0.0
        self._info_due = 0.0
        self._wait = 0

    def stop(self) -> None:
        """Ask `run` to end. Safe in a signal handler: it takes no lock."""
        self._stop_asked = True

    def run(self) -> None:
        """Run until stopped; raises what ended the agent otherwise."""
        logger.info("agent %s %s starts, server %s", self._api.config.agent_id, __version__, self._api.config.server)
        loops = (self._check_in_loop, self._worker.loop, self._sender.loop, self._progress_loop)
        threads = [
            threading.Thread(target=self._guard, args=(loop,), daemon=True, name=loop.__name__) for loop in loops
        ]
        try:
            self._worker.recover()
            for thread in threads:
                thread.start()
            while not self._stop.is_set() and not self._stop_asked:
                self._stop.wait(0.25)
            self._end(*threads)
        finally:
            self._journal.close()
            self._lock.release()
        if self._failure is not None:
            raise self._failure
        logger.info("agent stops")

    def _guard(self, loop: Callable[[], None]) -> None:
        """Run one of the loops; its failure ends the whole agent, for no part is of use without the others."""
        try:
            loop()
        except Exception as error:
            if not self._stop.is_set():
                if not isinstance(error, AgentError):
                    logger.exception("a fault of the agent")
                    error = AgentError(
                        f"A fault of the agent ended it: {type(error).__name__}: {error}; the log has the details."
                    )
                self._failure = error
        finally:
            self._api.client.close()
            self._stop.set()

    def _end(
        self, check_in: threading.Thread, worker: threading.Thread, sender: threading.Thread, progress: threading.Thread
    ) -> None:
        self._stop.set()
        self._worker.stop()
        worker.join(self._stop_grace)
        self._worker.cut_short()
        worker.join(15.0)
        self._sender.wake(server_is_back=True)
        self._sender.stop()
        sender.join(5.0)
        self._api.client.abort()
        for thread in (sender, check_in, progress):
            thread.join(2.0)

    def _check_in_loop(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._send_info()
                self._check_in()
            except (ServerRefused, ServerUnreachable) as error:
                failures += 1
                retry_after = error.retry_after if isinstance(error, ServerRefused) else None
                pause = back_off(failures, first=2.0, retry_after=retry_after)
                if not self._stop.is_set():
                    self._note(str(error))
                    logger.warning("check-in failed, next in %.0f s: %s", pause, error)
            else:
                if failures:
                    self._sender.wake(server_is_back=True)
                failures = 0
                pause = self._pause()
            self._stop.wait(pause)

    def _pause(self) -> float:
        if self._wait:
            # The server holds the next call until there is something to do; the pause only guards against one that
            # does not.
            return min(jitter(1.0), self._api.config.check_in_interval)
        interval = self._api.config.check_in_interval
        if time.monotonic() < self._rapid_until:
            interval = min(interval, self._rapid_interval)
        return jitter(interval)

    def _send_info(self) -> None:
        if time.monotonic() < self._info_due:
            return
        try:
            self._api.post("system-info", facts.system_info(self._api.client.host))
        except ServerRefused as refused:
            if refused.status != 404:
                # No reason to go without commands.
                logger.warning("system-info was not taken: %s", refused)
        self._info_due = time.monotonic() + INFO_EVERY

    def _check_in(self) -> None:
        body = facts.load()
        body.update(protocol=1, held=self._journal.held())
        left = self._rapid_until - time.monotonic()
        if left > 0:
            until = datetime.now(timezone.utc) + timedelta(seconds=left)
            body["metadata"] = {
                "rapid_polling_enabled": True,
                "rapid_polling_until": until.isoformat(timespec="seconds").replace("+00:00", "Z"),
                "rapid_polling_duration_minutes": self._rapid_minutes,
            }
        asked = self._witness.question()
        if asked is not None:
            body["log"] = asked
        answer = self._api.check_in(body, self._wait)
        wait = answer.get("wait")
        self._wait = int(min(wait, MAX_WAIT)) if isinstance(wait, (int, float)) and wait >= 1 else 0
        self._note("")
        self._api.update(
            check_in_interval=clean_interval(answer.get("check_in_interval"), self._api.config.check_in_interval)
        )
        ended = answer.get("ended")
        self._worker.end(ended if isinstance(ended, list) else [])
        self._take(answer.get("commands"))
        if asked is not None:
            self._witness.take(answer.get("log"))
        self._witness.report()

    def _take(self, handed_out: Any) -> None:
        """Journal the commands of a check-in, tell the server, then let them run."""
        entries: List[Entry] = []
        for command in handed_out[:MAX_COMMANDS] if isinstance(handed_out, list) else []:
            entry = self._receive(command)
            if entry is not None:
                entries.append(entry)
        if any(entry.state == "received" for entry in entries):
            # Nothing depends on it: the next check-in names them in `held`, and none starts without the server's word.
            self._tell_progress(if_running=False)
        self._worker.accept(entries)

    def _receive(self, command: Any) -> Optional[Entry]:
        fields = command if isinstance(command, dict) else {}
        command_id, command_type, params = fields.get("id"), fields.get("type"), fields.get("params")
        params = {} if params is None else params
        named = _TYPE.fullmatch(str(command_type))
        if (
            not isinstance(command_id, str)
            or not is_uuid(command_id)
            or not isinstance(command_type, str)
            or not named
            or not isinstance(params, dict)
        ):
            logger.warning("a command that is not well-formed was left alone: %s", repr(command)[:200])
            return None
        command_id = command_id.lower()
        is_new = self._journal.received(command_id, command_type, params)
        entry = self._journal.get(command_id)
        if entry is not None and not is_new and entry.is_done:
            logger.warning("command %s was handed out again, but is %s; it is not run again", command_id, entry.state)
        return entry

    def _progress_loop(self) -> None:
        while not self._stop.wait(self._progress_every):
            self._tell_progress(if_running=True)

    def _tell_progress(self, *, if_running: bool) -> None:
        try:
            self._worker.progress(if_running=if_running)
        except (ServerRefused, ServerUnreachable) as error:
            logger.warning("progress could not be told: %s", error)

    def _set_rapid(self, minutes: float) -> None:
        self._rapid_minutes = minutes
        self._rapid_until = time.monotonic() + minutes * 60 if minutes else 0.0

    def _note(self, error: str) -> None:
        """Leave a note for `redflag-agent status`. It is a convenience: a disk that is full is the journal's to
        report."""
        with suppress(OSError):
            path = self._directory / STATUS_NAME
            status = read_status(self._directory)
            status.update(version=__version__, last_error=error, last_error_at=utc_now() if error else "")
            if not error:
                status["last_check_in"] = utc_now()
            write_private(path, json.dumps(status).encode())


def read_status(directory: Path) -> Json:
    """What the running agent last noted: last_check_in, last_error, last_error_at, version."""
    with suppress(OSError, ValueError):
        status = json.loads((directory / STATUS_NAME).read_text(encoding="utf-8"))
        if isinstance(status, dict):
            return status
    return {}
