"""What can be said of one file or a live source, each part marked with what it proves."""
