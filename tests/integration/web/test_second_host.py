"""A second host is enrolled by one pasted command: the script, the archive, its checksum, all as the server serves them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from redflag.web.agent import downloads

VERIFIER = Path(__file__).resolve().parents[3] / "verify" / "redflag_verify.py"


async def test_the_archive_is_what_its_checksum_says_and_holds_the_agent_and_the_verifier(anonymous):
    archive = (await anonymous.get("/agent/redflag-agent.pyz")).content
    told = (await anonymous.get("/agent/redflag-agent.pyz.sha256")).text
    assert told == f"{hashlib.sha256(archive).hexdigest()}  redflag-agent.pyz\n"
    names = zipfile.ZipFile(BytesIO(archive)).namelist()
    assert "redflag_agent/main.py" in names
    others = [name for name in names if not (name.startswith("redflag_agent/") and name.endswith(".py"))]
    assert sorted(others) == ["__main__.py", "redflag_verify.py"]
    assert zipfile.ZipFile(BytesIO(archive)).read("redflag_verify.py") == VERIFIER.read_bytes()


def test_the_same_sources_give_the_same_archive():
    first = downloads.archive()
    downloads.archive.cache_clear()
    assert downloads.archive() == first


def test_the_archive_runs_by_itself(tmp_path: Path):
    file = tmp_path / "redflag-agent.pyz"
    file.write_bytes(downloads.archive())
    ran = subprocess.run(
        [sys.executable, "-I", str(file), "version"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert "1.0" in ran.stdout


def _namespaces() -> bool:
    return (
        os.geteuid() == 0
        and shutil.which("unshare") is not None
        and subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
        ).returncode
        == 0
    )


# A host of its own: what the script writes goes into file systems that end with it
HOST = """
set -e
mount -t tmpfs none /opt
mount -t tmpfs none /var/lib
mount -t tmpfs none /run
sh -s -- {token} {key} <{script}
python3 /opt/redflag-agent/redflag-agent.pyz status --state-dir /var/lib/redflag-agent --json
"""


@pytest.mark.skipif(not _namespaces(), reason="needs root, who may mount file systems of its own")
async def test_the_pasted_command_enrols_a_host(admin, anonymous, tmp_path: Path, base_url):
    made = await admin.post("/api/v1/enrolment-tokens", json={"label": "second host", "seats": 1})
    key = (await admin.get("/api/v1/audit/log")).json()["key"]
    script = tmp_path / "install.sh"
    script.write_bytes((await anonymous.get("/agent/install.sh")).content)
    assert made.json()["command"] == f"curl -fsS {base_url}/agent/install.sh | sudo sh -s -- {made.json()['token']}"

    async def on_the_host() -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            "unshare", "-m", "sh", "-c", HOST.format(token=made.json()["token"], key=key, script=script),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    code, said = await on_the_host()
    assert code == 0, said
    assert "redflag-agent: enrolled" in said
    assert base_url in said
    assert f'"key": "{key}"' in said
    tokens = (await admin.get("/api/v1/enrolment-tokens")).json()["enrolment_tokens"]
    assert next(one for one in tokens if one["id"] == made.json()["id"])["seats_used"] == 1
    # The seat is taken: the same command on a third host says so, and what to do
    code, said = await on_the_host()
    assert code != 0
    assert "used up" in said


async def test_a_script_whose_archive_was_changed_on_the_way_stops(anonymous, tmp_path: Path):
    script = (await anonymous.get("/agent/install.sh")).text
    assert downloads.checksum() in script
    assert f"SHA256='{downloads.checksum()}'" in script
