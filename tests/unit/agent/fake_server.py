"""A server in a thread that speaks the agent protocol over real sockets, for the tests of the agent.

It keeps commands as the real one does (pending, sent, running, done), records every call, and can be told to answer a
call in another way.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

AGENT_ID = "0198c0de-0000-7000-8000-000000000001"
REGISTRATION_TOKEN = "r" * 64


class Call:
    """One call that arrived."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.name = path.partition("?")[0].rsplit("/", 1)[-1]


class FakeServer:
    """Use as a context manager; `url` is its address."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.access_token = "access-1"
        self.refresh_token = "refresh-1"
        self.interval = 1.0
        self.wait = 0
        self.log: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda asked: None
        self.log_key: str | None = None
        self.alarms: list[dict[str, Any]] = []
        self.calls: list[Call] = []
        self.commands: dict[str, dict[str, Any]] = {}
        self.results: dict[str, list[dict[str, Any]]] = {}
        self.connections = 0
        self.scripted: list[tuple[str, int, dict[str, str], bytes]] = []
        self.changed = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def http(self) -> ThreadingHTTPServer:
        return self._http

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}{self.prefix}"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def add(self, command_type: str, params: dict[str, Any] | None = None, seconds: float = 600) -> str:
        """Queue a command; its id."""
        command_id = str(uuid.uuid4())
        with self.changed:
            self.commands[command_id] = {
                "type": command_type,
                "params": params,
                "state": "pending",
                "deadline": time.monotonic() + seconds,
            }
            self.changed.notify_all()
        return command_id

    def end(self, command_id: str) -> None:
        """End a command, as a cancellation does."""
        with self.changed:
            self.commands[command_id]["state"] = "done"

    def answer_next(self, call: str, status: int, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
        """Answer the next call of that name in this way."""
        with self.changed:
            self.scripted.append((call, status, headers or {}, body))

    def named(self, name: str) -> list[Call]:
        """The calls of that name, in order."""
        with self.changed:
            return [call for call in self.calls if call.name == name]

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
        """Wait until something is so; looked at after each call."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), f"waited in vain until {what}"

    def wait_for_result(self, command_id: str, seconds: float = 30) -> dict[str, Any]:
        """The first result that came for a command."""
        self.wait_for(lambda: self.results.get(command_id), f"command {command_id} is reported", seconds)
        return self.results[command_id][0]

    # What follows runs in the threads of the HTTP server, holding `changed`.

    def _answer(self, call: Call) -> tuple[int, dict[str, str], bytes]:
        for index, (name, status, headers, body) in enumerate(self.scripted):
            if name == call.name:
                del self.scripted[index]
                return status, headers, body
        status, answer = self._route(call)
        return status, {}, json.dumps(answer).encode()

    def _route(self, call: Call) -> tuple[int, dict[str, Any]]:
        if call.name == "register":
            if call.headers.get("authorization") != f"Bearer {REGISTRATION_TOKEN}":
                return 401, {"error": "this registration token is not valid"}
            return 200, {
                "agent_id": AGENT_ID,
                "token": self.access_token,
                "refresh_token": self.refresh_token,
                "config": {"check_in_interval": self.interval},
                **({"log_key": self.log_key} if self.log_key else {}),
            }
        if call.name == "renew":
            if call.body.get("refresh_token") != self.refresh_token:
                return 401, {"error": "this refresh token is not valid"}
            return 200, {"token": self.access_token}
        if call.headers.get("authorization") != f"Bearer {self.access_token}":
            return 401, {"error": "this token is not valid"}
        if not call.path.startswith(f"{self.prefix}/api/v1/agents/{AGENT_ID}/"):
            return 404, {"error": "no such agent"}
        return 200, getattr(self, "_on_" + call.name.replace("-", "_"))(call)

    def _on_commands(self, call: Call) -> dict[str, Any]:
        held = set(call.body.get("held", []))

        def due() -> list[str]:
            return [
                key
                for key, command in self.commands.items()
                if command["state"] == "pending" or (command["state"] == "sent" and key not in held)
            ]

        if "?wait=" in call.path:
            self.changed.wait_for(due, min(float(call.path.partition("?wait=")[2]), 2.0))
        handed_out = due()[:10]
        for key in handed_out:
            self.commands[key]["state"] = "sent"
        log = self.log(call.body["log"]) if "log" in call.body else None
        return {
            **({"log": log} if log else {}),
            "commands": [{"id": key, **{k: self.commands[key][k] for k in ("type", "params")}} for key in handed_out],
            "ended": [key for key in held if self.commands.get(key, {"state": "done"})["state"] == "done"],
            "check_in_interval": self.interval,
            "wait": self.wait,
        }

    def _on_progress(self, call: Call) -> dict[str, Any]:
        ids = call.body.get("received", []) + call.body.get("running", [])
        live = {}
        for key in ids:
            command = self.commands.get(key)
            if command and command["state"] != "done":
                command["state"] = "running" if key in call.body.get("running", []) else command["state"]
                live[key] = command["deadline"] - time.monotonic()
        return {"live": live, "ended": [key for key in ids if key not in live]}

    def _on_logs(self, call: Call) -> dict[str, Any]:
        key = call.body["command_id"]
        reports = self.results.setdefault(key, [])
        repeated = call.body in reports
        if not repeated:
            reports.append(call.body)
        late = self.commands[key]["state"] == "done"
        self.commands[key]["state"] = "done"
        return {"status": "already_recorded" if repeated else "late" if late else "recorded"}

    def _on_log_alarm(self, call: Call) -> dict[str, Any]:
        self.alarms.append(call.body)
        return {"status": "recorded"}

    def _on_updates(self, call: Call) -> dict[str, Any]:
        return {"count": len(call.body["updates"]), "rejected": []}

    def _on_dependencies(self, call: Call) -> dict[str, Any]:
        return {}

    def _on_system_info(self, call: Call) -> dict[str, Any]:
        return {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with server.changed:
                    server.connections += 1

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {key.lower(): value for key, value in self.headers.items()}
                call = Call(self.command, self.path, headers, json.loads(body or b"{}"))
                with server.changed:
                    server.calls.append(call)
                    status, extra, answer = server._answer(call)
                    server.changed.notify_all()
                try:
                    self.send_response(status)
                    for key, value in extra.items():
                        self.send_header(key, value)
                    if "Content-Length" not in extra:
                        self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    self.close_connection = True  # an agent that was killed does not read its answer

            do_GET = do_POST = _serve  # noqa: N815 - the names that http.server looks for

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the overridden method
                pass

        return Handler
