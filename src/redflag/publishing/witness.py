"""Asking a witness for its cosignature (C2SP tlog-witness, "add-checkpoint").

A witness signs only what continues the tree that it signed last, so it is told where that is, with the proof. If it knows
otherwise it says so (409), and is asked once more from there.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable

import redflag_verify
from redflag.audit import cosignatures
from redflag.audit.checkpoint import Checkpoint
from redflag.audit.cosignatures import Cosignature
from redflag.errors import InvalidInput
from redflag.publishing.http import Answer, Http
from redflag.publishing.targets import TargetFailed

# The consistency proof of the tree of a checkpoint from an older size (RFC 6962 §2.1.2)
Consistency = Callable[[int], Awaitable[list[bytes]]]

SIZE_TYPE = "text/x.tlog.size"
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,17})\n?")
# Another server may have been there in between; a witness that goes on so is wrong
ROUNDS = 3


class Ahead(TargetFailed):
    """The witness has cosigned a larger tree than the one that it was asked for."""

    def __init__(self, known: int, size: int) -> None:
        self.known = known
        super().__init__(
            f"It has cosigned {known} records, and the log has {size}: the database was rolled back, or the witness is wrong",
            "Compare with the checkpoints that others keep; see docs/howto/back-up-and-restore.md",
        )


async def cosign(
    http: Http, prefix: str, key: redflag_verify.Key, checkpoint: Checkpoint, old: int, consistency: Consistency
) -> Cosignature:
    """The witness's verified cosignature of the checkpoint; `old` is the size that it is believed to have signed last.

    Raises TargetFailed, or Ahead when the witness knows a larger tree.
    """
    for _ in range(ROUNDS):
        proof = await consistency(old)
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        answer = await http.post(f"{prefix}/add-checkpoint", request(old, proof, checkpoint.note), headers)
        if answer.status != 409:
            break
        known = _size(answer, old if old == checkpoint.size else None)
        if known > checkpoint.size:
            raise Ahead(known, checkpoint.size)
        if known == old:
            raise TargetFailed(
                f"It has cosigned another tree of {known} records: two logs go by this name, or the witness is wrong",
                "Run `redflag audit fsck`, and compare with the checkpoints that others keep",
            )
        old = known
    if answer.status != 200:
        raise _refusal(answer, checkpoint)
    try:
        return await asyncio.to_thread(cosignatures.verify, checkpoint.note, answer.body, key)
    except InvalidInput as error:
        raise TargetFailed(error.what, error.next_step) from None


def request(old: int, proof: list[bytes], note: str) -> bytes:
    """The body of the request: old size, proof, an empty line, the checkpoint."""
    return "\n".join([f"old {old}", *(base64.b64encode(one).decode() for one in proof), "", note]).encode()


def _size(answer: Answer, otherwise: int | None) -> int:
    """The size that it says it knows. It need not say so when it was asked for the very size that it knows, with another root."""
    matched = _SIZE.fullmatch(answer.body)
    if answer.content_type == SIZE_TYPE and matched:
        return int(matched[1])
    if otherwise is None:
        raise TargetFailed("It answered 409 without the size that it knows", "Check its address: is it a witness?")
    return otherwise


def _refusal(answer: Answer, checkpoint: Checkpoint) -> TargetFailed:
    told = {
        400: ("It takes the request for malformed", "Check its address: is it a C2SP witness?"),
        403: (
            f"It does not accept the signature of {checkpoint.origin}",
            "Its operator has another key of the log than `redflag audit key` shows",
        ),
        404: (
            f"It does not know the log {checkpoint.origin}",
            "Give its operator the log's key (`redflag audit key`), and check the address",
        ),
        409: ("It names another size each time", "Ask its operator"),
        422: (
            f"It says that the log of {checkpoint.size} records does not continue the one that it cosigned",
            "Run `redflag audit fsck`, and compare with the checkpoints that others keep",
        ),
        429: ("It wants fewer requests", "Give it a longer time between two checkpoints"),
    }
    what, next_step = told.get(answer.status, (f"It answered HTTP {answer.status}", "Ask its operator"))
    return TargetFailed(what, next_step, answer.retry_after)
