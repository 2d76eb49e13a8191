"""RedFlag: a self-hosted server for fleet updates and commands, with an audit trail that cannot be altered unseen."""

__version__ = "0.1.0"
