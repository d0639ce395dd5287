"""A live source: its newest frame, the people in it followed, a rolling verdict of each."""
