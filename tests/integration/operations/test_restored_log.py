"""After the restore of an older backup the log stops and everything else goes on, until the administrator opens a new one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from .conftest import Installation

VERIFIER = Path(__file__).resolve().parents[3] / "verify" / "redflag_verify.py"


def _api(installation: Installation) -> httpx.Client:
    token = (installation.var / "cli-token").read_text().strip()
    return httpx.Client(base_url=installation.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def _record(installation: Installation, count: int) -> None:
    """Something happens that is recorded, so many times."""
    with _api(installation) as api:
        for _ in range(count):
            made = api.post("/api/v1/tokens", json={"name": f"t-{uuid.uuid4()}", "role": "viewer"})
            assert made.is_success, made.text


def _log(installation: Installation, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the server says of the log, once it is so."""
    with _api(installation) as api:
        for _ in range(400):
            log: dict[str, Any] = api.get("/api/v1/audit/log").json()
            if until(log):
                return log | {"served": api.get("/log/checkpoint").text}
            time.sleep(0.05)
    raise AssertionError(log)


def test_the_log_stops_says_so_and_goes_on_under_a_new_name_while_records_are_written(
    another: Installation, tmp_path: Path
) -> None:
    assert another.redflag("up", "--no-agent").returncode == 0
    saved = _log(another, lambda log: log["checkpoint"] and log["pending"] == 0)
    file = tmp_path / "redflag.backup"
    assert another.redflag("backup", str(file)).returncode == 0
    _record(another, 20)
    lost = _log(another, lambda log: log["checkpoint"]["size"] >= saved["checkpoint"]["size"] + 20)
    assert another.redflag("down").returncode == 0

    restored = another.redflag("restore", "--replace", str(file))
    assert restored.returncode == 0, restored.stderr
    assert "The audit log will not go on as it is" in restored.stdout
    assert "`redflag audit reopen`" in restored.stdout
    assert another.redflag("up", "--no-agent").returncode == 0
    _record(another, 30)
    (check,) = [
        check
        for check in json.loads(another.redflag("doctor", "--json").stdout)["checks"]
        if check["name"] == "audit log"
    ]
    assert check["verdict"] == "failed"
    assert "the database was rolled back" in check["found"]
    assert "redflag audit reopen" in check["next_step"]
    stopped = _log(another, lambda log: log["pending"] >= 30)
    assert stopped["sequenced"] == stopped["integrated"] <= lost["checkpoint"]["size"] - 20

    done = another.redflag("audit", "reopen", "--origin", "fleet.example/log-2", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout)
    # The server runs, and takes the new name by itself
    gone_on = _log(
        another, lambda log: log["origin"] == "fleet.example/log-2" and log["pending"] == 0 and log["checkpoint"]
    )
    assert gone_on["key"] == opened["key"]
    assert re.search(rf"^previous \S+ {opened['first_size']} ", gone_on["served"], re.MULTILINE)
    assert re.search(rf"^abandoned \S+ {opened['known']['size']} ", gone_on["served"], re.MULTILINE)
    assert (another.var / "log-key" / "closed-1-checkpoint").read_text().splitlines()[1] == str(opened["known"]["size"])
    head = tmp_path / "checkpoint"
    head.write_text(gone_on["served"])
    ran = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), "checkpoint", str(head), "--key", opened["key"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert "what it says of a log before it" in ran.stdout
