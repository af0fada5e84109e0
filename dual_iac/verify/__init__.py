"""Proves that what runs is what was meant: for now, that workspaces answer."""
