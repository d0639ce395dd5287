"""Pages: templates, words and the look that they share."""
