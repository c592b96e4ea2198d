"""Branches of the model, one file each: networks, loss terms, statistics and pictures."""
