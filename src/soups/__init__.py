"""Merges as runs: planned, made, chosen, recorded."""
