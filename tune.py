"""Find the recipe (members, weights, threshold) on out-of-fold predictions; see --help."""

import sys

from src.cli.tune import main

if __name__ == "__main__":
    sys.exit(main())
