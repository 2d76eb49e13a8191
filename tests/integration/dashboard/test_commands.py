"""The pages of commands: what waits and why, what ended, acts that leave a record with the person's name."""

from __future__ import annotations

import pytest


async def test_opens(admin, viewer):
    for one in (admin, viewer):
        await one.page("/commands")
        await one.page("/commands?show=ended")
    await admin.page("/commands/new")
