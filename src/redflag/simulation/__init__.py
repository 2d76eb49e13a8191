"""The load simulator: a fleet of agents that are none, for a server of one's own. It speaks the agents' protocol, and measures."""
