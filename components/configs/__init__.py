"""Configuration: frozen pydantic models, one for each stage, checked as a whole before anything runs.

Every field carries its unit and range; a cross-field check names both fields. Nothing here reads files.
"""

from components.configs.base import Config, fault_message, first_fault
from components.configs.data import DatasetConfig, PartConfig, SplitConfig, ValidationConfig
from components.configs.drift import DRIFT_ROWS, DriftConfig
from components.configs.embedding import EmbeddingConfig, GalleryConfig, IndexTierConfig
from components.configs.evaluation import EvaluationConfig, ExportConfig, PromotionConfig, RegistryConfig
from components.configs.model import HubConfig, ImageTowerConfig, ModelConfig, TextTowerConfig
from components.configs.run import TrainingParameters
from components.configs.slices import SLICES
from components.configs.training import TrainingConfig

__all__ = [
    "DRIFT_ROWS",
    "SLICES",
    "Config",
    "DatasetConfig",
    "DriftConfig",
    "EmbeddingConfig",
    "EvaluationConfig",
    "ExportConfig",
    "GalleryConfig",
    "HubConfig",
    "ImageTowerConfig",
    "IndexTierConfig",
    "ModelConfig",
    "PartConfig",
    "PromotionConfig",
    "RegistryConfig",
    "SplitConfig",
    "TextTowerConfig",
    "TrainingConfig",
    "TrainingParameters",
    "ValidationConfig",
    "fault_message",
    "first_fault",
]
