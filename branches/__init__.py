"""A branch is its networks, its loss terms, its statistics and its pictures; one file each."""
