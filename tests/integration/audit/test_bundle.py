"""A bundle holds what was asked for, proves it to a stranger offline, and fails once anybody touched it."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import random
import re
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pypdf
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import redflag_verify
from integration.audit.evidence import HOSTILE, SECRET, VERIFIER, Place, make_history, new_name, place, verify
from redflag.audit import actor as actors
from redflag.audit import bundle, cosignatures, erasure, merkle
from redflag.audit.checkpoint import COSIGNATURE, Verifier
from redflag.audit.export.reading import Selection
from redflag.database.embedded import EmbeddedDatabase
from redflag.errors import Conflict, InvalidInput

SEVERAL = 700


@pytest_asyncio.fixture(scope="module")
async def here(postgres: EmbeddedDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A log of some hundred records in two checkpoints."""
    async with place(postgres, new_name("bundle"), tmp_path_factory.mktemp("bundle")) as one:
        await make_history(one)
        one.known["between"] = await one.now()
        await one.owner.execute(
            "INSERT INTO update_logs (result, message) SELECT 'success', 'note ' || i FROM generate_series(1, $1::int) i",
            SEVERAL,
        )
        one.known["size"] = await one.seal()
        yield one


async def _bundle(here: Place, file: Path, selection: Selection, **more: Any) -> bundle.Written:
    with file.open("xb") as out:
        written = await bundle.write(here.pool, here.signer, out, selection, **more)
    assert _sha256(file) == written.sha256
    return written


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _entries(file: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(file) as opened:
        return [json.loads(line) for line in opened.read("entries.jsonl").splitlines()]


async def test_a_bundle_of_everything_verifies_offline_and_holds_every_record(here: Place, tmp_path: Path) -> None:
    file = tmp_path / "all.zip"
    told: list[tuple[int, int]] = []
    written = await _bundle(here, file, Selection(), tell=lambda done, of: told.append((done, of)))
    size = here.known["size"]
    assert (written.count, written.first, written.last, written.size, written.withheld) == (size, 0, size - 1, size, 0)
    assert told[-1] == (size, size)
    ran = verify(file, here.signer)
    assert ran.returncode == 0, ran.stdout
    assert f"no position is missing from 0 to {size - 1}" in ran.stdout
    assert "run without a gap from 1 on" in ran.stdout
    assert len(_entries(file)) == await here.owner.fetchval("SELECT count(*) FROM audit_entries")
    with zipfile.ZipFile(file) as opened:
        assert opened.testzip() is None
        assert opened.read("redflag_verify.py") == VERIFIER.read_bytes()
        assert len(opened.read("README.txt").splitlines()) == 3
        assert opened.read("proof").count(b"\n") == 2
        assert pypdf.PdfReader(io.BytesIO(opened.read("report.pdf"))).pages
        assert b"<script" not in opened.read("report.html")


SELECTIONS = {
    "nothing": {"actor": "user:nobody"},
    "one command": {"command_id": "late"},
    "one agent": {"agent_id": "agent"},
    "one kind": {"kind": "transition"},
    "one type": {"command_type": "reboot"},
    "one result": {"result": "timed_out"},
    "one person": {"actor": "user:ada"},
    "several at once": {"actor": "user:ada", "kind": "change"},
}


@pytest.mark.parametrize("name", SELECTIONS)
async def test_a_filtered_bundle_verifies_and_holds_what_sql_selects(here: Place, tmp_path: Path, name: str) -> None:
    selection = Selection(**{key: here.known.get(value, value) for key, value in SELECTIONS[name].items()})
    file = tmp_path / "some.zip"
    written = await _bundle(here, file, selection)
    ran = verify(file, here.signer)
    assert ran.returncode == 0, ran.stdout
    where = " AND ".join(f"u.{key} = ${i}" for i, key in enumerate(selection.filters, 1))
    rows = await here.owner.fetch(
        f"SELECT e.position FROM audit_entries e JOIN update_logs u ON u.id = e.record_id WHERE {where} ORDER BY 1",
        *(value for value in vars(selection).values() if value is not None),
    )
    assert [entry["position"] for entry in _entries(file)] == [row["position"] for row in rows]
    assert written.count == len(rows)
    with zipfile.ZipFile(file) as opened:
        manifest = json.loads(opened.read("manifest.json"))
    assert manifest["filters"] == selection.filters
    assert manifest["completeness"]["filtered"] is True


async def test_a_period_is_a_bundle_without_a_missing_position(here: Place, tmp_path: Path) -> None:
    file = tmp_path / "period.zip"
    since = here.known["between"]
    written = await _bundle(here, file, Selection(since=since, until=since + datetime.timedelta(days=1)))
    assert (written.count, written.first) == (SEVERAL, here.known["first_size"])
    ran = verify(file, here.signer)
    assert ran.returncode == 0, ran.stdout
    assert f"no position is missing from {written.first} to {written.last}" in ran.stdout
    later = await _bundle(here, tmp_path / "later.zip", Selection(since=since + datetime.timedelta(days=1)))
    assert (later.count, later.first) == (0, None)
    assert verify(tmp_path / "later.zip", here.signer).returncode == 0


@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 256), (3, 4), (255, 513), (0, 300), (7, 7)])
async def test_a_range_of_positions_can_be_bundled(here: Place, tmp_path: Path, first: int, end: int) -> None:
    written = await _bundle(here, tmp_path / "range.zip", Selection(), first=first, end=end)
    assert written.count == end - first
    ran = verify(tmp_path / "range.zip", here.signer)
    assert ran.returncode == 0, ran.stdout


async def test_one_connection_will_do_as_well_as_a_pool(here: Place, tmp_path: Path) -> None:
    async with here.pool.acquire() as connection:
        with (tmp_path / "one.zip").open("wb") as out:
            written = await bundle.write(
                connection, here.signer, out, Selection(), end=5, extra={"policy.txt": b"12 months"}
            )
    assert written.count == 5
    assert verify(tmp_path / "one.zip", here.signer).returncode == 0
    with zipfile.ZipFile(tmp_path / "one.zip") as opened:
        assert opened.read("policy.txt") == b"12 months"


@pytest.mark.parametrize("given", [{"first": 5, "end": 4}, {"first": -1}, {"end": 10**9}, {"consistency_from": 10**9}])
async def test_a_range_that_is_none_is_refused(here: Place, tmp_path: Path, given: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="not within it"):
        await _bundle(here, tmp_path / "none.zip", Selection(), **given)


@pytest.mark.parametrize("name", ["manifest.json", "../x", "report.html", "leaves", "README.txt", "a b", ""])
async def test_another_file_cannot_take_the_name_of_the_bundles_own(here: Place, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name"):
        await _bundle(here, tmp_path / "name.zip", Selection(), end=1, extra={name: b""})


async def test_it_goes_on_from_a_checkpoint_that_was_kept(here: Place, tmp_path: Path) -> None:
    old = tmp_path / "old-checkpoint"
    first = here.known["first_size"]
    old.write_text(await here.owner.fetchval("SELECT note FROM audit_checkpoints WHERE size = $1", first))
    await _bundle(here, tmp_path / "new.zip", Selection(kind="note"), consistency_from=first)
    ran = verify(tmp_path / "new.zip", here.signer, "--since-checkpoint", str(old))
    assert ran.returncode == 0, ran.stdout
    assert f"begins with the older one of {first}" in ran.stdout
    await _bundle(here, tmp_path / "without.zip", Selection(kind="note"))
    assert verify(tmp_path / "without.zip", here.signer, "--since-checkpoint", str(old)).returncode == 1


async def test_what_a_witness_cosigned_is_what_it_carries(here: Place, tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    witness = Verifier("witness.example/w", private.public_key().public_bytes_raw(), COSIGNATURE)
    row = await here.owner.fetchrow("SELECT * FROM audit_checkpoints ORDER BY size DESC LIMIT 1")
    moment = int(row["published_at"].timestamp())
    text = row["note"].rpartition("\n\n")[0] + "\n"
    signature = private.sign(f"cosignature/v1\ntime {moment}\n{text}".encode())
    line = f"\N{EM DASH} {witness.name} {base64.b64encode(witness.id + moment.to_bytes(8, 'big') + signature).decode()}"
    made = cosignatures.Cosignature(
        witness.name, witness.id, line, datetime.datetime.fromtimestamp(moment, datetime.UTC)
    )
    async with here.pool.acquire() as connection:
        await cosignatures.keep(connection, row["size"], made)
    await here.owner.execute(
        "INSERT INTO update_logs (result, message) VALUES ('success', 'newer than what was cosigned')"
    )
    await here.seal()
    until = row["published_at"]
    await _bundle(here, tmp_path / "cosigned.zip", Selection(until=until))
    ran = verify(tmp_path / "cosigned.zip", here.signer, "--witness", witness.vkey(), "--quorum", "1")
    assert ran.returncode == 0, ran.stdout
    await _bundle(here, tmp_path / "newest.zip", Selection())
    assert verify(tmp_path / "newest.zip", here.signer).returncode == 0
    assert verify(tmp_path / "newest.zip", here.signer, "--witness", witness.vkey()).returncode == 1


async def test_what_was_erased_is_not_in_it_and_all_else_verifies(here: Place, tmp_path: Path) -> None:
    await _bundle(here, tmp_path / "before.zip", Selection(agent_id=here.known["agent"]))
    assert SECRET in json.dumps(_entries(tmp_path / "before.zip"))
    record = await here.owner.fetchval("SELECT id FROM update_logs WHERE stdout = $1", SECRET)
    async with here.pool.acquire() as connection:
        await erasure.erase(connection, actors.user("ada"), record, ["stdout", "actor"], "it had a password in it")
    await here.seal()
    file = tmp_path / "after.zip"
    await _bundle(here, file, Selection(agent_id=here.known["agent"]))
    ran = verify(file, here.signer)
    assert ran.returncode == 0, ran.stdout
    assert "stdout: 1 values are not shown" in ran.stdout
    with zipfile.ZipFile(file) as opened:
        assert all(SECRET.encode() not in opened.read(name) for name in opened.namelist())
    [entry] = [entry for entry in _entries(file) if json.loads(entry["leaf"])["id"] == str(record)]
    assert {"stdout", "actor"} <= json.loads(entry["leaf"])["commitments"].keys()
    assert not {"stdout", "actor"} & (entry["values"].keys() | entry["salts"].keys())
    assert "message" in entry["values"]


def _altered(file: Path, to: Path, name: str, change: Any) -> None:
    with zipfile.ZipFile(file) as opened, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as made:
        for one in opened.namelist():
            data = opened.read(one)
            made.writestr(one, change(data) if one == name else data)


def _flipped(data: bytes) -> bytes:
    place = random.Random(4).randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


async def test_a_bundle_in_which_anything_was_altered_does_not_verify(here: Place, tmp_path: Path) -> None:
    file = tmp_path / "whole.zip"
    await _bundle(here, file, Selection(kind="transition"))
    with zipfile.ZipFile(file) as opened:
        names = opened.namelist()
    assert len(names) == 12
    for number, name in enumerate(names):
        _altered(file, tmp_path / f"{number}.zip", name, _flipped)
        assert verify(tmp_path / f"{number}.zip", here.signer).returncode == 1, name
    _altered(file, tmp_path / "cut.zip", "entries.jsonl", lambda data: data[: data.rindex(b"\n", 0, -1) + 1])
    ran = verify(tmp_path / "cut.zip", here.signer)
    assert ran.returncode == 1
    assert "an entry was left out" in ran.stdout
    _altered(
        file, tmp_path / "said.zip", "entries.jsonl", lambda data: data.replace(b"timed out after", b"completed after")
    )
    ran = verify(tmp_path / "said.zip", here.signer)
    assert ran.returncode == 1
    assert "the value shown is not the one that was recorded" in ran.stdout or "SHA-256 differs" in ran.stdout


async def test_a_position_that_is_gone_is_told_and_no_bundle_is_handed_out(
    postgres: EmbeddedDatabase, tmp_path: Path
) -> None:
    async with place(postgres, new_name("gone"), tmp_path) as here:
        with pytest.raises(Conflict, match="No checkpoint"):
            await _bundle(here, tmp_path / "early.zip", Selection())
        await here.owner.execute("INSERT INTO update_logs (result) SELECT 'success' FROM generate_series(1, 20)")
        size = await here.seal()
        await here.owner.execute(
            "ALTER TABLE audit_entries DISABLE TRIGGER USER; DELETE FROM audit_entries WHERE position = 11"
        )
        with pytest.raises(Conflict, match=f"Of positions 0 to {size - 1} only {size - 1} are there"):
            await _bundle(here, tmp_path / "gap.zip", Selection())


async def test_what_no_verifier_takes_is_withheld_and_named_and_what_repeats_itself_is_no_bomb(
    postgres: EmbeddedDatabase, tmp_path: Path
) -> None:
    deep: Any = "x"
    for _ in range(70):
        deep = [deep]
    async with place(postgres, new_name("odd"), tmp_path) as here:
        await here.owner.execute("INSERT INTO update_logs (result, metadata) VALUES ('success', $1)", {"deep": deep})
        await here.owner.execute(
            "INSERT INTO update_logs (result, stdout) VALUES ('success', repeat('again and again ', 400000))"
        )
        size = await here.seal()
        written = await _bundle(here, tmp_path / "odd.zip", Selection())
        assert (written.count, written.withheld) == (size, 1)
        ran = verify(tmp_path / "odd.zip", here.signer)
        assert ran.returncode == 0, ran.stdout
        with zipfile.ZipFile(tmp_path / "odd.zip") as opened:
            assert opened.read("withheld.txt").endswith(b"metadata: nested too deeply\n")
            assert opened.getinfo("entries.jsonl").compress_type == zipfile.ZIP_STORED


async def test_a_line_that_would_be_too_long_gives_up_its_largest_value(
    here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redflag_verify, "LINE_LIMIT", 1500)
    written = await _bundle(here, tmp_path / "long.zip", Selection(agent_id=here.known["agent"]))
    assert written.withheld > 0
    ran = verify(tmp_path / "long.zip", here.signer)
    assert ran.returncode == 0, ran.stdout


async def test_thousands_of_events_need_little_memory(postgres: EmbeddedDatabase, tmp_path: Path) -> None:
    async with place(postgres, new_name("many"), tmp_path) as here:
        # 5,000 records of 8 kB: 40 MB on their way through
        await here.owner.execute(
            "INSERT INTO update_logs (result, stdout) SELECT CASE WHEN i % 3 = 0 THEN 'failed' ELSE 'success' END,"
            " (SELECT repeat(string_agg(md5((i * 1000 + j)::text), ''), 8) FROM generate_series(1, 32) j) FROM generate_series(1, 5000) i"
        )
        size = await here.seal()
        await _bundle(here, tmp_path / "warm.zip", Selection(), end=300)
        before = _peak(anew=True)
        written = await _bundle(here, tmp_path / "all.zip", Selection())
        some = await _bundle(here, tmp_path / "some.zip", Selection(result="failed"))
        grown = _peak() - before
        assert (written.count, some.count) == (size, 5000 // 3)
        with zipfile.ZipFile(tmp_path / "all.zip") as opened:
            assert opened.getinfo("entries.jsonl").file_size > 40_000_000
        assert grown < 20 * 1024, f"{grown} KiB more at its peak"
        assert verify(tmp_path / "all.zip", here.signer).returncode == 0
        assert verify(tmp_path / "some.zip", here.signer).returncode == 0


def _peak(*, anew: bool = False) -> int:
    """The most memory that this process had, in KiB; counted anew from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def test_the_subtrees_beside_the_entries_are_those_of_the_definition() -> None:
    """verify/SPEC.md §10: the largest subtrees that hold none of the entries, from left to right."""

    def defined(size: int, positions: list[int]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []

        def walk(begin: int, end: int, inside: list[int]) -> None:
            if not inside:
                found.append((begin, end))
            elif end - begin > 1:
                middle = begin + merkle.split(end - begin)
                walk(begin, middle, [one for one in inside if one < middle])
                walk(middle, end, [one for one in inside if one >= middle])

        if size:
            walk(0, size, positions)
        return found

    chance = random.Random(10)
    for size in [*range(35), 255, 256, 257, 1000, 65_537]:
        for count in {0, 1, 2, size // 3, size}:
            positions = sorted(chance.sample(range(size), min(count, size, 200)))
            assert list(bundle.gaps(size, positions)) == defined(size, positions), (size, positions)


async def test_the_report_inside_speaks_of_what_is_inside(here: Place, tmp_path: Path) -> None:
    await _bundle(here, tmp_path / "ada.zip", Selection(actor="user:ada"))
    with zipfile.ZipFile(tmp_path / "ada.zip") as opened:
        told = json.loads(opened.read("report.json"))
        page = opened.read("report.html").decode()
    assert told["filters"] == {"actor": "user:ada"}
    assert {row["actor"] for row in told["activity"]["rows"]} == {"user:ada"}
    assert "user:mallory" not in page
    assert HOSTILE not in page
