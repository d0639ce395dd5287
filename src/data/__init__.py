"""Data sets in: layouts, manifest, groups, folds, pixels."""
