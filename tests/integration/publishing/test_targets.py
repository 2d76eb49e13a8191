"""Who may be a target, and that each change of one leaves its record."""

from __future__ import annotations

import base64
import datetime
import re
import uuid

import asyncpg
import pytest

from integration.publishing.listeners import Witness
from redflag.alerts import metrics
from redflag.audit import actor as actors
from redflag.errors import Conflict, InvalidInput, NotFound
from redflag.publishing import targets
from redflag.publishing.targets import Kind


async def _records(owner, target) -> list:
    return await owner.fetch(
        "SELECT action, actor, message, metadata FROM update_logs WHERE metadata ->> 'subject_id' = $1 ORDER BY created_at",
        str(target["id"]),
    )


async def test_each_change_of_a_target_leaves_one_record_with_who_did_it(log, add, owner, pool):
    target = await add("webhook", "https://hooks.example/one", name="auditors' hook".replace("'", ""))
    async with pool.acquire() as connection:
        changed = await targets.change(
            connection, actors.user("eve"), target["id"], name="other", address="https://hooks.example/two",
            every=datetime.timedelta(seconds=5), enabled=False, secret="whsec_" + base64.b64encode(bytes(24)).decode(),
        )  # fmt: skip
        assert (changed["name"], changed["enabled"], changed["every"].seconds) == ("other", False, 5)
        await targets.change(connection, actors.user("eve"), target["id"], enabled=True)
        await targets.remove(connection, actors.user("mallory"), target["id"])
        with pytest.raises(NotFound):
            await targets.remove(connection, actors.user("mallory"), target["id"])
        with pytest.raises(NotFound):
            await targets.change(connection, actors.user("mallory"), target["id"], enabled=True)
    records = await _records(owner, target)
    assert [(record["action"], record["actor"]) for record in records] == [
        ("log_target_added", "user:ada"), ("log_target_changed", "user:eve"), ("log_target_changed", "user:eve"),
        ("log_target_removed", "user:mallory"),
    ]  # fmt: skip
    assert "address: https://hooks.example/one → https://hooks.example/two" in records[1]["message"]
    assert "secret set" in records[1]["message"]
    assert "every: 00:01:00 → 00:00:05" in records[1]["message"]


async def test_a_change_by_hand_is_recorded_under_the_name_of_the_database_role(log, add, owner):
    target = await add("file", "by-hand.txt")
    await owner.execute("UPDATE log_targets SET enabled = false WHERE id = $1", target["id"])
    assert (await _records(owner, target))[-1]["actor"] == "db:redflag_owner"


async def test_the_server_itself_changes_no_target_without_saying_who(log, add, server):
    target = await add("file", "nobodys.txt")
    with pytest.raises(asyncpg.PostgresError, match="names no actor"):
        await server.execute("UPDATE log_targets SET enabled = false WHERE id = $1", target["id"])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server.execute("DELETE FROM log_targets")
    for statement in (
        "UPDATE log_cosignatures SET line = ''",
        "DELETE FROM log_cosignatures",
        "TRUNCATE log_cosignatures",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await server.execute(statement)


@pytest.mark.parametrize("kind", ["file", "git"])
@pytest.mark.parametrize(
    "address",
    ["/etc/passwd", "../up", "..", ".", ".hidden", "a/b", "a\\b", "a b", "", "-rf", "x" * 101, "ref.lock", "dot.", "é", "a\n",
     "~root", "$HOME"],
)  # fmt: skip
async def test_a_place_outside_of_the_folder_cannot_be_named(log, add, kind, address):
    with pytest.raises(InvalidInput, match="is no name for a"):
        await add(kind, address)


@pytest.mark.parametrize("kind", ["witness", "webhook"])
@pytest.mark.parametrize(
    "address",
    ["file:///etc/passwd", "ftp://x.example/", "x.example", "//x.example", "https://", "http://:80/", "https://x.example:99999/", "https://[::1/",
     "gopher://x",
     "https://x.example/ y", "https://x.example/\x00", "https://x.example/é", "https://u:p@x.example/",
     "https://u@x.example/", "https://x.example/#a"],
)  # fmt: skip
async def test_what_is_no_plain_address_is_refused(log, add, kind, address):
    with pytest.raises(InvalidInput):
        await add(kind, address, **({"vkey": Witness(log.vkey).vkey} if kind == "witness" else {}))


async def test_a_witness_needs_a_witnesss_key_and_others_have_none(log, add):
    good = Witness(log.vkey).vkey
    name, key_id, key = good.split("+", 2)
    wrong = base64.b64encode(base64.b64decode(key)[:-1] + b"\x00").decode()
    small = base64.b64encode(b"\x04" + b"\x01" + bytes(31)).decode()
    for vkey in (
        None,
        "",
        "x",
        log.vkey,
        f"{name}+{key_id}+{wrong}",
        f"other+{key_id}+{key}",
        f"{name}+{key_id}+{small}",
    ):
        with pytest.raises(InvalidInput, match="This is no witness's key"):
            await add("witness", "https://w.example/", vkey=vkey)
    for kind, address in (("file", "x"), ("webhook", "https://h.example/")):
        with pytest.raises(InvalidInput, match="has no key"):
            await add(kind, address, vkey=good)
    for kind, address in (("file", "x"), ("witness", "https://h.example/")):
        with pytest.raises(InvalidInput, match="has no secret"):
            await add(kind, address, secret="whsec_" + "A" * 44, **({"vkey": good} if kind == "witness" else {}))


@pytest.mark.parametrize("secret", ["", "x", "whsec_", "whsec_short", "whsec_!!!!", "A" * 44, "whsec_" + "A" * 96])
async def test_a_weak_secret_is_refused(log, add, secret):
    with pytest.raises(InvalidInput, match="This is no secret of a webhook"):
        await add("webhook", "https://h.example/", secret=secret)


async def test_names_witnesses_and_places_are_had_once_until_they_are_free_again(log, add, pool):
    witness = Witness(log.vkey)
    first = await add("witness", "https://w.example/", name="First", vkey=witness.vkey)
    with pytest.raises(Conflict, match="There is a target First already"):
        await add("file", "x", name="first")
    with pytest.raises(Conflict, match="The target First is this witness already"):
        await add("witness", "https://elsewhere.example/", vkey=witness.vkey)
    other = Witness(log.vkey)
    with pytest.raises(Conflict, match="this witness already"):  # another key under its name
        await add("witness", "https://elsewhere.example/", vkey=other.vkey)
    witness.name = "another.example"
    with pytest.raises(Conflict, match="this witness already"):  # its key under another name
        await add("witness", "https://elsewhere.example/", vkey=witness.vkey)
    await add("git", "place")
    with pytest.raises(Conflict, match="is at place already"):
        await add("file", "Place")
    async with pool.acquire() as connection:
        await targets.remove(connection, actors.user("ada"), first["id"])
    await add("witness", "https://w.example/", name="First", vkey=other.vkey)


async def test_there_are_no_more_witnesses_than_every_verifier_reads(log, add):
    for number in range(15):
        await add("witness", "https://w.example/", vkey=Witness(log.vkey, f"w{number}.example").vkey)
    with pytest.raises(Conflict, match="15 of them witnesses"):
        await add("witness", "https://w.example/", vkey=Witness(log.vkey, "one.more").vkey)
    for number in range(17):
        await add("file", f"f{number}")
    with pytest.raises(Conflict, match="32 is the most"):
        await add("file", "one-more")


@pytest.mark.parametrize("every", [0.5, 0, -1, 32 * 86400])
async def test_the_time_between_two_has_bounds(log, add, every):
    with pytest.raises(InvalidInput, match="between 1 s and 31 days"):
        await add("file", "x", every=every)


async def test_the_kinds_are_those_that_the_database_knows(log, owner):
    check = await owner.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'log_targets_kind_check'"
    )
    assert set(re.findall(r"'(\w+)'", check)) == set(Kind) == set(targets.EVERY)


async def test_the_metrics_say_how_far_each_target_is(log, add, sender, server):
    async with Witness(log.vkey) as witness:
        await add("witness", witness.url, name="near", vkey=witness.vkey)
        await add("file", "far.txt", name="far")
        await server.execute("SELECT 1")
        checkpoint = await log.grow()
        (sender._folder / "far.txt").mkdir(parents=True)
        await sender.send_due()
    told = (await metrics.render(server, 60)).decode()
    assert f"redflag_audit_checkpoint_records {checkpoint.size:.1f}" in told
    assert f'redflag_audit_log_target_records{{kind="witness",target="near"}} {checkpoint.size:.1f}' in told
    assert 'redflag_audit_log_target_records{kind="file",target="far"} 0.0' in told
    assert 'redflag_audit_log_target_failures_total{kind="file",target="far"} 1.0' in told
    assert re.search(r'last_success_timestamp_seconds\{kind="witness",target="near"\} 1\.\d+e\+09', told)
    assert 'last_success_timestamp_seconds{kind="file",target="far"}' not in told


async def test_an_unknown_target_is_not_there(log, pool, sender):
    async with pool.acquire() as connection:
        with pytest.raises(NotFound):
            await targets.show(connection, uuid.uuid4())
    with pytest.raises(Conflict, match="or it is gone"):
        await sender.try_now(uuid.uuid4())
