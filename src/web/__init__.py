"""The page that files are dropped on, and its JSON API; needs the extra `web`."""
