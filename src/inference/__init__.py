"""From checkpoints to predictions of any rows."""
