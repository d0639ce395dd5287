"""Scores and recipes under shift: what held-out items say when they are delivered otherwise."""
