"""A module a source: each registers itself in `READERS`, a new file here is enough."""

from src.registry import import_all

import_all(__name__)
