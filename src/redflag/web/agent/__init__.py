"""The agents' protocol: thin and hot. Who an agent is comes from its token alone; it speaks for its own commands only."""
