"""Configs by name (`find`), a model's config (`schema`), read from YAML (`read`)."""

from src.config.find import check_stem, config_file, config_files
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
    "check_stem",
    "config_file",
    "config_files",
    "model_names",
    "model_path",
    "parse_change",
    "parse_model",
    "read_model",
    "set_dotted",
]
