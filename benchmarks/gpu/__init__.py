"""Proves and measures training and animation on a GPU, in one command: see __main__.py."""
