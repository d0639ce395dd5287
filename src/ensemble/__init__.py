"""Out-of-fold logits in, a recipe out: align, search, cross-fit, vote; never imports torch."""
