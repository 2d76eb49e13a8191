"""Runs the command line as `python -m redflag_agent` and as a zipapp."""

from __future__ import annotations

import sys

from redflag_agent.main import main

if __name__ == "__main__":
    sys.exit(main())
