"""Commands for more than one machine or disk."""
