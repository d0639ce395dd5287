"""From a config and a fold to a checkpoint with its out-of-fold predictions."""
