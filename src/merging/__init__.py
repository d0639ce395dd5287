"""Merging weights: tensors in, tensors out; knows no data and no model."""
