"""From canvases to batches: sampling, augmentation, mixing."""
