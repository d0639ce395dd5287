"""Many of our commands on an engine that is there: what is to be done, where, and how it stands."""
