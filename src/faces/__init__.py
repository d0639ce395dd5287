"""Faces: found, followed through a clip, cut out."""

from src.registry import import_all

import_all(__name__)
