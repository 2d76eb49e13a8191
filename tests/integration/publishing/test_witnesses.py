"""Witnesses: honest ones are believed as far as their key goes, and others not at all."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import redflag_verify as verifier
from integration.publishing.listeners import Answer, Listener, Request, Witness, until
from redflag.audit import cosignatures, merkle, tiles
from redflag.audit.checkpoint import Checkpoint, Signer
from redflag.database import faults
from redflag.errors import Conflict, NotFound
from redflag.publishing.sender import UNREACHABLE_AFTER

VERIFIER = Path(verifier.__file__).resolve()
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def _verify(file: Path, key: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(VERIFIER), "checkpoint", str(file), "--key", key, *more],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


async def test_what_witnesses_cosigned_is_served_as_one_note_that_a_stranger_can_check(
    log, add, sender, pool, tmp_path
):
    async with Witness(log.vkey, "witness.example/w1") as first, Witness(log.vkey, "witness.example/w2") as second:
        await add("witness", first.url, vkey=first.vkey)
        await add("witness", f"{second.url}/", vkey=second.vkey)
        checkpoint = await log.grow()
        assert [one.error for one in await sender.send_due()] == ["", ""]
    async with pool.acquire() as connection:
        note = await tiles.checkpoint(connection)
        assert note == await tiles.checkpoint(connection, 2)
        with pytest.raises(NotFound, match="No checkpoint has been cosigned by 3 yet"):
            await tiles.checkpoint(connection, 3)
    assert note.startswith(checkpoint.note)
    file = tmp_path / "checkpoint"
    file.write_text(note)
    both = ("--witness", first.vkey, "--witness", second.vkey)
    for arguments in ((), both, (*both, "--quorum", "1"), (*both, "--quorum", "2")):
        ran = _verify(file, log.vkey, *arguments)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    file.write_text(checkpoint.note)
    assert _verify(file, log.vkey, *both, "--quorum", "1").returncode == 1


async def test_the_newest_checkpoint_and_the_newest_that_was_cosigned_are_two_things(log, add, sender, pool):
    async with Witness(log.vkey) as witness:
        await add("witness", witness.url, vkey=witness.vkey)
        cosigned = await log.grow()
        await sender.send_due()
        newer = await log.grow()
        async with pool.acquire() as connection:
            assert await tiles.checkpoint(connection) == newer.note
            assert (await tiles.checkpoint(connection, 1)).startswith(cosigned.note)


async def test_a_checkpoint_is_sent_with_the_proof_that_it_continues_the_last_one(log, add, sender, due, state):
    async with Witness(log.vkey) as witness:
        target = await add("witness", witness.url, vkey=witness.vkey)
        for count in (1, 300, 5):
            checkpoint = await log.grow(count)
            await due()
            asked = len(witness.requests)
            assert [one.size for one in await sender.send_due()] == [checkpoint.size]
            assert len(witness.requests) == asked + 1
            assert (witness.size, witness.root) == (checkpoint.size, checkpoint.root)
            assert (await state(target))["acknowledged_size"] == checkpoint.size
    assert all(request.headers["content-type"] == "text/plain; charset=utf-8" for request in witness.requests)


async def test_a_witness_that_knows_the_log_already_says_how_far_and_is_asked_once_more(log, add, sender, owner):
    known = await log.newest()
    async with Witness(log.vkey) as witness:
        witness.size, witness.root = known.size, known.root
        await add("witness", witness.url, vkey=witness.vkey)
        checkpoint = await log.grow(20)
        assert [one.size for one in await sender.send_due()] == [checkpoint.size]
        assert [request.body.split(b"\n")[0] for request in witness.requests] == [b"old 0", b"old %d" % known.size]


async def test_a_witness_of_the_very_newest_checkpoint_may_be_asked_again(log, add, sender):
    async with Witness(log.vkey) as witness:
        target = await add("witness", witness.url, vkey=witness.vkey)
        checkpoint = await log.grow()
        for _ in range(2):
            assert (await sender.try_now(target["id"])).size == checkpoint.size
        assert len(witness.requests) == 2
        assert len(await log.cosignatures()) == 1
        assert await sender.send_due() == []  # nothing is new


async def test_a_restored_backup_is_found_by_a_witness_that_saw_more(log, add, sender, state):
    checkpoint = await log.grow()
    async with Witness(log.vkey) as witness:
        witness.size = checkpoint.size + 100
        target = await add("witness", witness.url, vkey=witness.vkey)
        (outcome,) = await sender.send_due()
    assert f"It has cosigned {checkpoint.size + 100} records, and the log has {checkpoint.size}" in outcome.error
    assert "the database was rolled back" in (await state(target))["last_error"]
    assert (await state(target))["acknowledged_size"] == 0
    assert await log.cosignatures() == []


async def test_a_rewritten_log_is_found_by_a_witness_that_saw_the_other(log, add, sender, due, state):
    checkpoint = await log.grow()
    async with Witness(log.vkey) as witness:
        target = await add("witness", witness.url, vkey=witness.vkey)
        witness.size, witness.root = checkpoint.size, merkle.leaf_hash(b"another")
        (outcome,) = await sender.send_due()
        assert f"It has cosigned another tree of {checkpoint.size} records" in outcome.error
        await log.grow()
        await due()
        (outcome,) = await sender.send_due()
        assert "does not continue the one that it cosigned" in outcome.error
    assert (await state(target))["failures_in_a_row"] == 2
    assert await log.cosignatures() == []


def _line(
    witness: Witness, key: verifier.Key, private: Ed25519PrivateKey, note: bytes, moment: int, text: bytes | None = None
) -> bytes:
    text = note.rpartition(b"\n\n")[0] + b"\n" if text is None else text
    signature = private.sign(f"cosignature/v1\ntime {moment}\n".encode() + text)
    line = base64.b64encode(key.id + moment.to_bytes(8, "big") + signature).decode()
    return f"\N{EM DASH} {key.name} {line}\n".encode()


def _other_key(witness: Witness, note: bytes) -> bytes:
    return _line(witness, witness.key, Ed25519PrivateKey.generate(), note, int(time.time()))


def _unpinned_key(witness: Witness, note: bytes) -> bytes:
    private = Ed25519PrivateKey.generate()
    key = verifier.Key(witness.name, verifier.COSIGNATURE, private.public_key().public_bytes_raw())
    return _line(witness, key, private, note, int(time.time()))


def _dated(seconds: int) -> Callable[[Witness, bytes], bytes]:
    return lambda witness, note: _line(witness, witness.key, witness.private, note, int(time.time()) + seconds)


def _of_time(moment: int) -> Callable[[Witness, bytes], bytes]:
    return lambda witness, note: _line(witness, witness.key, witness.private, note, moment)


def _another_text(witness: Witness, note: bytes) -> bytes:
    # With an empty line of its own the answer would move the end of the text that is signed
    text = note + b"more\n"
    return b"more\n\n" + _line(witness, witness.key, witness.private, note, int(time.time()), text)


def _of_another_size(witness: Witness, note: bytes) -> bytes:
    origin, size, root, *_ = note.split(b"\n")
    text = b"\n".join([origin, b"%d" % (int(size) + 1), root, b""])
    return _line(witness, witness.key, witness.private, note, int(time.time()), text)


def _a_good_one_and_a_bad_one(witness: Witness, note: bytes) -> bytes:
    return witness.cosign(note) + _other_key(witness, note)


def _small_order(witness: Witness, note: bytes) -> bytes:
    """A signature whose R is the neutral element: OpenSSL accepts it, and the verifier that everybody uses refuses the whole note."""
    moment, neutral = int(time.time()), b"\x01" + bytes(31)
    message = f"cosignature/v1\ntime {moment}\n".encode() + note.rpartition(b"\n\n")[0] + b"\n"
    secret = int.from_bytes(hashlib.sha512(witness.private.private_bytes_raw()).digest()[:32], "little")
    secret = secret & (2**254 - 8) | 2**254
    k = int.from_bytes(hashlib.sha512(neutral + witness.key.public + message).digest(), "little")
    signature = neutral + (k * secret % ED25519_ORDER).to_bytes(32, "little")
    witness.private.public_key().verify(signature, message)
    line = base64.b64encode(witness.key.id + moment.to_bytes(8, "big") + signature).decode()
    return f"\N{EM DASH} {witness.name} {line}\n".encode()


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        pytest.param(lambda *_: b"", "without a cosignature of witness.example/w1", id="nothing"),
        pytest.param(lambda *_: b"\xff\xfe garbage \x00\n", "no UTF-8", id="no text"),
        pytest.param(lambda *_: b"thanks!\n", "no cosignature: a signature line is malformed", id="no signature line"),
        pytest.param(lambda witness, note: witness.cosign(note)[:-2], "no signed note", id="cut off"),
        pytest.param(_other_key, "the cosignature of witness.example/w1 is wrong", id="another key of its name and id"),
        pytest.param(_unpinned_key, "without a cosignature of witness.example/w1", id="a key that is not pinned"),
        pytest.param(_dated(3600), "s in the future", id="tomorrow"),
        pytest.param(_dated(-3600), "s before the checkpoint was signed", id="yesterday"),
        pytest.param(_of_time(0), "s before the checkpoint was signed", id="1970"),
        pytest.param(_of_time(2**62), "beyond all calendars", id="the end of time"),
        pytest.param(_of_time(2**63 + 5), "is wrong", id="beyond the end of time"),
        pytest.param(_another_text, "not only signature lines", id="another text"),
        pytest.param(_of_another_size, "is wrong", id="another size"),
        pytest.param(_a_good_one_and_a_bad_one, "is wrong", id="good and bad"),
        pytest.param(_small_order, "is wrong", id="a point of small order"),
        pytest.param(
            lambda witness, note: witness.cosign(note) * 300, "the note has 301 signatures", id="too many lines"
        ),
        pytest.param(lambda *_: b"x" * 70_000, "more than 65536 bytes", id="too long a line"),
    ],
)
async def test_what_a_lying_witness_says_is_never_stored(log, add, sender, state, lie, said):
    async with Witness(log.vkey) as witness:
        witness.answer = lambda request: Answer(200, (lie(witness, request.body.partition(b"\n\n")[2]),))  # type: ignore[method-assign]
        target = await add("witness", witness.url, vkey=witness.vkey)
        await log.grow()
        (outcome,) = await sender.send_due()
    assert said in outcome.error
    assert await log.cosignatures() == []
    now = await state(target)
    assert (now["acknowledged_size"], now["failures_in_a_row"], now["claimed_until"]) == (0, 1, None)
    assert said in now["last_error"]


async def test_lines_of_other_keys_around_a_good_one_are_passed_over_and_not_stored(log, add, sender, pool):
    async with Witness(log.vkey) as witness:

        def answer(request: Request) -> Answer:
            note = request.body.partition(b"\n\n")[2]
            others = _unpinned_key(witness, note), "\N{EM DASH} somebody.example AAAAAAAA\n".encode()
            return Answer(200, (others[0], witness.cosign(note), others[1]))

        witness.answer = answer  # type: ignore[method-assign]
        await add("witness", witness.url, vkey=witness.vkey)
        await log.grow()
        assert [one.error for one in await sender.send_due()] == [""]
    (kept,) = await log.cosignatures()
    assert (kept["witness"], kept["key_id"]) == (witness.name, witness.key.id)
    async with pool.acquire() as connection:
        assert len((await tiles.checkpoint(connection, 1)).rpartition("\n\n")[2].splitlines()) == 2


TYPE = {"Content-Type": "text/x.tlog.size"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(400), "takes the request for malformed"),
        (Answer(403), "does not accept the signature of publishing.example/log"),
        (Answer(404), "does not know the log publishing.example/log"),
        (Answer(422), "does not continue the one that it cosigned"),
        (Answer(429), "wants fewer requests"),
        (Answer(500), "answered HTTP 500"),
        (Answer(302, headers={"Location": "http://127.0.0.1:1/elsewhere"}), "answered HTTP 302"),
        (Answer(409), "409 without the size"),
        (Answer(409, (b"7\n",)), "409 without the size"),
        (Answer(409, (b"seven\n",), TYPE), "409 without the size"),
        (Answer(409, (b"07\n",), TYPE), "409 without the size"),
        (Answer(409, (b"-1\n",), TYPE), "409 without the size"),
        (Answer(409, (b"9" * 5000,), TYPE), "409 without the size"),
        (Answer(409, (b"9" * 18,), TYPE), "the database was rolled back, or the witness is wrong"),
        (Answer(409, (b"0\n",), TYPE), "another tree of 0 records"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else value[:20],
)
async def test_each_refusal_is_told_in_words_and_kept(log, add, sender, state, answer, said):
    async with Listener(lambda _request: answer) as listener:
        target = await add("witness", listener.url, vkey=Witness(log.vkey).vkey)
        await log.grow()
        (outcome,) = await sender.send_due()
    assert said in outcome.error
    assert said in (await state(target))["last_error"]
    assert await log.cosignatures() == []


async def test_a_witness_that_names_another_size_each_time_is_not_asked_for_ever(log, add, sender):
    await log.grow(5)
    sizes = iter(range(1, 1000))
    async with Listener(lambda _request: Answer(409, (b"%d\n" % next(sizes),), TYPE)) as listener:
        await add("witness", listener.url, vkey=Witness(log.vkey).vkey)
        (outcome,) = await sender.send_due()
    assert "names another size each time" in outcome.error
    assert len(listener.requests) == 3


async def test_a_busy_witness_is_left_alone_for_as_long_as_it_wants(log, add, sender, owner, state):
    async with Listener(lambda _request: Answer(429, headers={"Retry-After": "1800"})) as listener:
        target = await add("witness", listener.url, vkey=Witness(log.vkey).vkey)
        await log.grow()
        await sender.send_due()
    now = await state(target)
    assert now["next_attempt_at"] - now["last_error_at"] == datetime.timedelta(seconds=1800)


async def test_an_answer_without_an_end_is_cut_off_and_not_read(log, add, sender):
    async with Listener(lambda _request: Answer(200, (b"x" * 65536,) * 1000)) as listener:
        await add("witness", listener.url, vkey=Witness(log.vkey).vkey)
        await log.grow()
        (outcome,) = await sender.send_due()
        assert "more than 65536 bytes" in outcome.error
        assert listener.sent < 65536 * 500  # what fits between the two ends


@pytest.mark.parametrize("parts", [(None,), (b"x", None)], ids=["no word", "half an answer"])
async def test_a_witness_that_hangs_holds_nobody_else_and_ends_by_itself(log, add, make_sender, parts):
    impatient = make_sender(patience=0.3)
    async with Listener(lambda _request: Answer(200, parts)) as hanging, Witness(log.vkey) as witness:
        await add("witness", hanging.url, name="hanging", vkey=Witness(log.vkey, "witness.example/w0").vkey)
        await add("witness", witness.url, name="well", vkey=witness.vkey)
        await log.grow()
        outcomes = {one.name: one for one in await impatient.send_due()}
    assert outcomes["well"].error == ""
    assert "did not answer within 0.3 s" in outcomes["hanging"].error


async def test_while_one_hangs_the_others_are_sent_to_and_the_log_goes_on(log, add, make_sender):
    patient, stop = make_sender(patience=60), asyncio.Event()
    async with Listener(lambda _request: Answer(200, (None,))) as hanging, Witness(log.vkey) as witness:
        for number in range(12):  # more than the server has connections to its database
            vkey = Witness(log.vkey, f"hanging.example/{number}").vkey
            await add("witness", hanging.url, vkey=vkey)
        running = asyncio.create_task(patient.run(stop))

        async def all_hang() -> bool:
            return len(hanging.requests) == 12

        async def cosigned() -> bool:
            return witness.size == checkpoint.size

        await until(all_hang)
        await add("witness", witness.url, vkey=witness.vkey)
        checkpoint = await log.grow()
        await until(cosigned)
        stop.set()
        await running
    # What was under way when the server stopped is free for others at once
    assert (
        await log.owner.fetchval(
            "SELECT count(*) FROM log_targets WHERE claimed_until IS NOT NULL AND removed_at IS NULL"
        )
        == 0
    )


async def test_of_several_servers_one_sends(log, add, make_sender, due):
    servers = [make_sender() for _ in range(4)]
    async with Witness(log.vkey) as witness:
        await add("witness", witness.url, vkey=witness.vkey)
        for _ in range(5):
            await log.grow()
            await due()
            asked = len(witness.requests)
            outcomes = await asyncio.gather(*[one.send_due() for one in servers])
            assert sum(len(one) for one in outcomes) == 1
            assert len(witness.requests) == asked + 1


async def test_the_claim_of_a_server_that_died_ends_by_itself(log, add, sender, owner, state):
    async with Witness(log.vkey) as witness:
        target = await add("witness", witness.url, vkey=witness.vkey)
        await log.grow()
        claim = "UPDATE log_targets SET claimed_until = now() + $2::interval, next_attempt_at = now() WHERE id = $1"
        await owner.execute(claim, target["id"], datetime.timedelta(seconds=60))
        assert await sender.send_due() == []
        with pytest.raises(Conflict, match="Somebody sends to this target right now"):
            await sender.try_now(target["id"])
        await owner.execute(claim, target["id"], datetime.timedelta(seconds=-1))
        assert [one.error for one in await sender.send_due()] == [""]
    assert (await state(target))["claimed_until"] is None


async def test_what_fails_is_tried_less_and_less_often_and_told_of_until_it_works_again(
    log, add, sender, owner, state, due
):
    faults.waiting.clear()
    async with Witness(log.vkey) as witness:
        witness.answer = lambda request: Answer(503)  # type: ignore[method-assign]
        target = await add("witness", witness.url, name="far away", vkey=witness.vkey)
        await log.grow()
        waits = []
        for _ in range(10):
            await sender.send_due()
            now = await state(target)
            waits.append((now["next_attempt_at"] - now["last_error_at"]).total_seconds())
            assert await sender.send_due() == []  # not before its time
            await due()
        longest = [min(300, 5 * 2**failure) for failure in range(10)]
        assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True)), waits
        assert now["failures"] == now["failures_in_a_row"] == 10
        told = [fault.detail for fault in faults.waiting if fault.kind == "log_target_failed"]
        assert len(told) == 10 - UNREACHABLE_AFTER + 1
        assert told[0].startswith("witness far away: It answered HTTP 503")
        del witness.answer
        assert [one.error for one in await sender.send_due()] == [""]
        now = await state(target)
        assert (now["failures"], now["failures_in_a_row"]) == (10, 0)
        assert now["last_ok_at"] > now["last_error_at"]
    faults.waiting.clear()


async def test_a_target_is_sent_to_no_more_often_than_it_wants(log, add, sender, state):
    async with Witness(log.vkey) as witness:
        target = await add("witness", witness.url, vkey=witness.vkey, every=90)
        await log.grow()
        await sender.send_due()
        await log.grow()
        assert await sender.send_due() == []
        now = await state(target)
        assert 80 < (now["next_attempt_at"] - now["last_ok_at"]).total_seconds() <= 90


async def test_sending_is_no_change_that_would_be_recorded(log, add, sender, owner):
    async with Witness(log.vkey) as witness:
        await add("witness", witness.url, vkey=witness.vkey)
        await log.grow()
        before = await owner.fetchval("SELECT count(*) FROM update_logs")
        await sender.send_due()
        assert await owner.fetchval("SELECT count(*) FROM update_logs") == before


async def test_a_cosignature_stays_as_it_is_whoever_would_change_it(log, add, sender, owner, superuser_of_publishing):
    async with Witness(log.vkey) as witness:
        await add("witness", witness.url, vkey=witness.vkey)
        await log.grow()
        await sender.send_due()
    for who in (owner, superuser_of_publishing):
        for statement in (
            "UPDATE log_cosignatures SET line = 'x'",
            "DELETE FROM log_cosignatures",
            "TRUNCATE log_cosignatures",
        ):
            with pytest.raises(Exception, match="append-only"):
                await who.execute(statement)


def test_a_witness_in_these_tests_refuses_what_a_witness_has_to(log):
    witness = Witness(log.vkey)

    def asks(old: int, checkpoint: Checkpoint, proof: list[bytes]) -> int:
        lines = [f"old {old}", *(base64.b64encode(one).decode() for one in proof), "", checkpoint.note]
        return witness.answer(Request("/add-checkpoint", {}, "\n".join(lines).encode())).status

    def signed(size: int, root: bytes, signer: Signer = log.signer) -> Checkpoint:
        return Checkpoint("", size, root, signer.sign(size, root))

    leaves = [merkle.leaf_hash(b"%d" % number) for number in range(7)]
    first, second = (signed(size, merkle.root_of(leaves[:size])) for size in (3, 7))
    reader = merkle.Reader(7, lambda _level, _index, width: b"".join(leaves[:width]))
    stranger = Signer(log.signer.verifier.name, Ed25519PrivateKey.generate())
    assert asks(0, signed(3, first.root, stranger), []) == 403
    assert asks(0, signed(3, first.root, Signer("other.example", Ed25519PrivateKey.generate())), []) == 404
    assert asks(4, first, []) == 400
    assert asks(0, first, []) == 200
    assert asks(0, second, []) == 409
    assert asks(3, second, []) == 422
    assert asks(3, signed(7, merkle.leaf_hash(b"")), reader.consistency(3)) == 422
    assert asks(3, second, reader.consistency(3)) == 200
    assert asks(3, first, []) == 409
    assert asks(7, signed(7, first.root), []) == 409
    assert cosignatures.MOST_WITNESSES == 15
