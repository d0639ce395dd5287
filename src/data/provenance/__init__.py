"""What a file says of itself, apart from any score."""
