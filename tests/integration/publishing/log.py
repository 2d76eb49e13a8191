"""A log whose steps a test does itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redflag.audit import sequencer
from redflag.audit.checkpoint import Checkpoint, Signer, open_own
from redflag.audit.memory import Memory


@dataclass
class Log:
    """The log of these tests."""

    owner: Any
    pool: Any
    signer: Signer
    memory: Memory

    @property
    def vkey(self) -> str:
        """Its key."""
        return self.signer.verifier.vkey()

    async def grow(self, count: int = 1) -> Checkpoint:
        """Some records more, and the checkpoint of all."""
        await self.owner.execute(
            "INSERT INTO update_logs (result, message) SELECT 'success', 'note ' || i FROM generate_series(1, $1) i",
            count,
        )
        async with self.pool.acquire() as one:
            while await self.owner.fetchval("SELECT EXISTS (SELECT FROM audit_pending)"):
                await sequencer.sequence(one)
            while await sequencer.integrate(one) > 0:
                pass
            await sequencer.publish(one, self.signer, self.memory)
        return await self.newest()

    async def newest(self) -> Checkpoint:
        """The newest checkpoint."""
        note = await self.owner.fetchval("SELECT note FROM audit_checkpoints ORDER BY size DESC LIMIT 1")
        return open_own(note, self.signer.verifier.public)

    async def cosignatures(self) -> list[Any]:
        """Everything that witnesses said of the newest checkpoint."""
        found: list[Any] = await self.owner.fetch(
            "SELECT * FROM log_cosignatures WHERE size = (SELECT max(size) FROM audit_checkpoints) ORDER BY witness"
        )
        return found
