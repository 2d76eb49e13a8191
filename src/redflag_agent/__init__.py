"""The RedFlag agent: runs on each host of a fleet and does what the server asks of it.

It needs the standard library of Python 3.9 or newer and nothing else, opens no port, and imports nothing from the
server. What it speaks is described in docs/reference/agent-protocol.md.
"""

from __future__ import annotations

__version__ = "1.0.0"
