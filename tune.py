"""Find the recipe (members, weights, threshold) on out-of-fold predictions; see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # `python -I` leaves it out
from src.cli.parsers import main

if __name__ == "__main__":
    sys.exit(main("tune"))
