"""Imports: what another system knew comes over, once, as one transaction that says of every row what became of it."""
