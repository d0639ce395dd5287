"""Maps of where a net looks, each held against chance. A kind of map is one function here."""

from src.registry import import_all

import_all(__name__)
