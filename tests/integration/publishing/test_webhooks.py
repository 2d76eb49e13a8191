"""Webhooks: signed as Standard Webhooks has it, sent again until they are accepted, and their secret is nowhere but in its column."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import time

import pytest

from integration.publishing.listeners import Answer, Listener, Request
from redflag.audit.checkpoint import open_own
from redflag.publishing import targets
from redflag.publishing.webhook import sign


def _is_signed(request: Request, secret: str) -> bool:
    # As a recipient does it that has only the specification
    key = base64.b64decode(secret.removeprefix("whsec_"))
    message = b".".join(
        [request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode(), request.body]
    )
    expected = b"v1," + base64.b64encode(hmac.new(key, message, hashlib.sha256).digest())
    return hmac.compare_digest(expected, request.headers["webhook-signature"].encode())


def test_the_signature_is_that_of_the_standards_own_example():
    # standard-webhooks/spec/standard-webhooks.md, "Signature scheme", and the test vectors of its libraries
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_webhook_gets_the_checkpoint_and_can_check_who_sent_it(log, add, sender):
    async with Listener() as listener:
        target = await add("webhook", f"{listener.url}/hook?of=the+auditors")
        checkpoint = await log.grow()
        assert [one.size for one in await sender.send_due()] == [checkpoint.size]
    (request,) = listener.requests
    assert request.path == "/hook?of=the+auditors"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == f"checkpoint-{checkpoint.size}"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    assert _is_signed(request, target["secret"])
    assert not _is_signed(Request(request.path, request.headers, request.body + b" "), target["secret"])
    told = json.loads(request.body)
    assert told["type"] == "log.checkpoint"
    assert told["data"]["size"] == checkpoint.size
    assert open_own(told["data"]["note"], log.signer.verifier.public).root == base64.b64decode(told["data"]["root"])


async def test_a_secret_that_was_given_is_used_and_not_shown(log, add, sender):
    secret = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    async with Listener() as listener:
        assert (await add("webhook", listener.url, secret=secret))["secret"] is None
        await log.grow()
        await sender.send_due()
    assert _is_signed(listener.requests[0], secret)


@pytest.mark.parametrize(
    "answer", [Answer(500), Answer(404), Answer(301, headers={"Location": "/"}), Answer(200, (b"x" * 99999,))]
)
async def test_what_a_webhook_does_not_accept_is_sent_again_under_the_same_id(log, add, sender, due, state, answer):
    async with Listener(lambda _request: answer) as listener:
        target = await add("webhook", listener.url)
        await log.grow()
        for _ in range(2):
            (outcome,) = await sender.send_due()
            assert outcome.error
            await due()
        del listener.answer
        assert [one.error for one in await sender.send_due()] == [""]
    assert len({request.headers["webhook-id"] for request in listener.requests}) == 1
    assert all(_is_signed(request, target["secret"]) for request in listener.requests)
    assert (await state(target))["failures_in_a_row"] == 0


async def test_nothing_of_what_a_webhook_answers_is_told_to_anybody(log, add, sender, state, caplog):
    # Its address may lie inside the server's own network
    answer = Answer(403, (b"credentials of the cloud",), {"X-Secret": "credentials", "Location": "http://credentials"})
    async with Listener(lambda _request: answer) as listener:
        target = await add("webhook", listener.url)
        await log.grow()
        (outcome,) = await sender.send_due()
    assert "credentials" not in outcome.error + (await state(target))["last_error"] + caplog.text


async def test_nobody_makes_the_server_remember_or_unpack_anything(log, add, sender, due):
    bomb = gzip.compress(bytes(50_000_000))
    headers = {"Set-Cookie": "a=b", "Content-Encoding": "gzip"}
    async with Listener(lambda _request: Answer(200, (bomb,), headers)) as listener:
        await add("webhook", listener.url)
        for _ in range(2):
            await log.grow()
            assert [one.error for one in await sender.send_due()] == [""]
            await due()
    assert all(
        "cookie" not in one.headers and one.headers["accept-encoding"] == "identity" for one in listener.requests
    )
    assert len(bomb) < 65536


async def test_nobody_there_is_told_in_words(log, add, sender):
    async with Listener() as listener:
        gone = listener.url
    await add("webhook", gone, name="gone")
    await add("webhook", "http://nobody.invalid/", name="nobody")
    await log.grow()
    for outcome in await sender.send_due():
        assert "It cannot be reached" in outcome.error


async def test_the_secret_stands_in_no_record_and_no_list(log, add, owner, pool, sender, caplog):
    async with Listener(lambda _request: Answer(500)) as listener:
        target = await add("webhook", listener.url)
        await log.grow()
        await sender.send_due()
    key = target["secret"].removeprefix("whsec_")
    records = await owner.fetch(
        "SELECT u::text AS text, message FROM update_logs u WHERE metadata ->> 'subject' = 'log_target'"
    )
    assert any("secret set" in record["message"] for record in records)
    assert not any(key in record["text"] for record in records)
    assert key not in caplog.text
    async with pool.acquire() as connection:
        assert key not in str(await targets.list_targets(connection))
