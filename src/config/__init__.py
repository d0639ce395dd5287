"""A model's config: frozen dataclasses (`schema`), read strictly from YAML (`read`)."""

from src.config.read import (
    model_names,
    model_path,
    parse_change,
    parse_model,
    read_model,
    set_dotted,
)
from src.config.schema import (
    BackboneConfig,
    InputConfig,
    InputSpec,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PseudoConfig,
)

__all__ = [
    "BackboneConfig",
    "InputConfig",
    "InputSpec",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "PseudoConfig",
    "model_names",
    "model_path",
    "parse_change",
    "parse_model",
    "read_model",
    "set_dotted",
]
