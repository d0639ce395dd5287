"""Which items share a fold, and in which fold they are held out."""
