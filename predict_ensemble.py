"""Vote with the tuned recipe and write the submission CSV. See README.md."""

import sys

from src.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
