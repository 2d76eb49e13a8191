"""Who may come in: users, roles, sessions, tokens of people and of agents."""
