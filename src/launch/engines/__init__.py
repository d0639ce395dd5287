"""Where jobs run: a registered engine each; a new file of this folder is a new engine."""

from src.launch.engines.base import ENGINES, JobEngine, Resources
from src.registry import import_all

__all__ = ["ENGINES", "JobEngine", "Resources"]
import_all(__name__)
