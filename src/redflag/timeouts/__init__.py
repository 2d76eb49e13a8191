"""Deadlines: the policies that give them and the sweeper that keeps them."""
