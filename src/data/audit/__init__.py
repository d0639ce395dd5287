"""Do files alone tell the label, or train from test."""
