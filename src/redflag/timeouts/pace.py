"""How fast a storm of timeouts is worked off: as fast as can be, and less fast while agents that check in are held up by it.

A batch is a statement that keeps a processor busy for its whole time, so two things give way: the second lane, and the size of the
batches, between which those who wait have their turn. A storm begins with small batches on one lane, which double while nobody is
held up. While somebody is, batches are halved, and each is followed by a wait for those who wait, of the batch's own time at the
most: the storm keeps half of the time of one lane, whatever comes in.
"""

from __future__ import annotations

from redflag.database.courtesy import Courtesy

FIRST = 200
# A smaller batch costs half as much again for each of its commands
SMALLEST = 100


class Pace:
    """The pace of one sweeper. `batch`: how many commands the next batch may have, `most` at the most; `leaves_room`: whether a second
    lane may work beside the first."""

    def __init__(self, courtesy: Courtesy, most: int) -> None:
        self._courtesy = courtesy
        self._most = most
        self.begin()

    def begin(self) -> None:
        """A sweep begins, and with it perhaps a storm."""
        self.batch = min(FIRST, self._most)
        self.leaves_room = False
        self._calm = True

    async def after(self, seconds: float) -> None:
        """A full batch took so long: chooses the size of the next, and waits for those who are held up."""
        if self._courtesy.held_up():
            self._calm = self.leaves_room = False
            self.batch = max(self.batch // 2, min(SMALLEST, self._most))
            await self._courtesy.give_way(seconds)
        else:
            self.leaves_room = self.batch == self._most
            self.batch = min(self.batch * 2 if self._calm else self.batch + SMALLEST, self._most)
