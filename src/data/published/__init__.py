"""Data sets as they were published: one reader each."""
