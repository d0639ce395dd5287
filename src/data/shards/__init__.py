"""Data beyond one disk: the items of a data set as tar shards, which WebDataset reads too."""
