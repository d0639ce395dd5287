"""Plots and pages of what was computed elsewhere; imports no torch for tuning."""
