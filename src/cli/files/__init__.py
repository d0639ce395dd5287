"""Commands that look at single files and live sources."""
