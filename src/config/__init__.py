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
    READING,
    BackboneConfig,
    FaceConfig,
    FramesConfig,
    HeadConfig,
    InputConfig,
    InputSpec,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PseudoConfig,
    TransferConfig,
)

__all__ = [
    "READING",
    "BackboneConfig",
    "FaceConfig",
    "FramesConfig",
    "HeadConfig",
    "InputConfig",
    "InputSpec",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "PseudoConfig",
    "TransferConfig",
    "model_names",
    "model_path",
    "parse_change",
    "parse_model",
    "read_model",
    "set_dotted",
]
