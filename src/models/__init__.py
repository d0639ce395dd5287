"""Backbones, weights, strategies and losses: all that a config can name."""
