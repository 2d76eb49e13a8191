"""The more connections there are, the sooner an idle one is closed, and never too soon for RedFlag's agents."""

from __future__ import annotations

from redflag.web.connections import LONGEST_SECONDS, SHORTEST_SECONDS, idle_seconds


def test_idle_connections_are_kept_for_as_long_as_there_is_room() -> None:
    assert {idle_seconds(connections, 1000) for connections in (0, 1, 499, 500)} == {LONGEST_SECONDS}


def test_the_time_shrinks_with_the_room_and_stays_above_what_redflags_agents_need() -> None:
    times = [idle_seconds(connections, 1000) for connections in range(500, 1100, 50)]
    assert times == sorted(times, reverse=True)
    assert times[-1] == SHORTEST_SECONDS > 35
