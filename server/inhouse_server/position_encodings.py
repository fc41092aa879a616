"""How positions in a line may be counted."""

ENCODINGS = ("utf-8", "utf-16", "utf-32")
UTF16 = "utf-16"
"""Counts when client and server agreed on nothing else."""
