"""Checkpoints leave the server: to witnesses, files, git repositories and webhooks, so that somebody else keeps them."""
