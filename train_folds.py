"""Train one model on one fold (or on all): writes checkpoints/ and oof/. See README.md."""

import sys

from src.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
