"""What an administrator sets: people, tokens, where the log is sent, what is kept. One file for each of its pages.

A page shows what its reader may see; what they may not do has no button, and its act refuses them anyway.
"""
