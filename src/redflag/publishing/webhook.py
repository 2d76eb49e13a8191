"""Telling a webhook of a checkpoint: a POST of JSON, signed as Standard Webhooks 1.0 (standardwebhooks.com) has it.

    webhook-id: checkpoint-<size>                    the same when it is sent again
    webhook-timestamp: <seconds since 1970>
    webhook-signature: v1,<base64 of HMAC-SHA256(secret, id.timestamp.body)>

The secret is `whsec_` and the key in base64. Any status of 2xx is success.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac

import msgspec

from redflag.audit.checkpoint import Checkpoint
from redflag.publishing.http import Http
from redflag.publishing.targets import TargetFailed, secret_key


async def post(
    http: Http,
    address: str,
    secret: str,
    checkpoint: Checkpoint,
    note: str,
    published_at: datetime.datetime,
    now: datetime.datetime,
) -> None:
    """Tells of the checkpoint; `note` is its note with the cosignatures that it has. Raises TargetFailed."""
    body = msgspec.json.encode(
        {
            "type": "log.checkpoint",
            "timestamp": published_at,
            "data": {
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root": base64.b64encode(checkpoint.root).decode(),
                "note": note,
            },
        }
    )
    message_id, moment = f"checkpoint-{checkpoint.size}", str(int(now.timestamp()))
    answer = await http.post(
        address,
        body,
        {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": moment,
            "webhook-signature": sign(secret, message_id, moment, body),
        },
    )
    if not 200 <= answer.status < 300:
        raise TargetFailed(f"It answered HTTP {answer.status}", "Look into its own log", answer.retry_after)


def sign(secret: str, message_id: str, moment: str, body: bytes) -> str:
    """The signature of a message: v1, and the base64 of the HMAC."""
    message = f"{message_id}.{moment}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret_key(secret), message, hashlib.sha256)).decode()
