"""The part of a server that sends records, in a process of its own, to be killed: `forwarder_process.py DSN`."""

from __future__ import annotations

import asyncio
import datetime
import signal
import sys

from redflag.audit.export.forwarding import Forwarding
from redflag.database import pool as pools

BATCH = 20
# Short, so that whoever comes after a killed one need not wait long
LEASE = datetime.timedelta(seconds=1)


async def main(dsn: str) -> None:
    """Sends until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    pool = await pools.open_pool(dsn, size=2)
    await Forwarding(pool, lease=LEASE, look_seconds=0.02, batch_seconds=0.9, batch=BATCH).run(stop)
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
