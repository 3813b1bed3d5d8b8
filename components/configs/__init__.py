"""Configuration: frozen pydantic models, one for each stage, checked as a whole before anything runs.

Every field carries its unit and range; a cross-field check names both fields. Nothing here reads files.
"""

from image_finder.components.configs.base import Config, fault_message, first_fault
from image_finder.components.configs.data import DatasetConfig, PartConfig, SplitConfig, ValidationConfig
from image_finder.components.configs.drift import DRIFT_ROWS, DriftConfig
from image_finder.components.configs.embedding import EmbeddingConfig, GalleryConfig, IndexTierConfig
from image_finder.components.configs.evaluation import (
    EvaluationConfig,
    ExportConfig,
    ExtraSetConfig,
    PromotionConfig,
    RegistryConfig,
)
from image_finder.components.configs.model import (
    ConceptsConfig,
    HubnessConfig,
    ImageTowerConfig,
    ModelConfig,
    TextTowerConfig,
)
from image_finder.components.configs.run import IndexingParameters, TrainingParameters
from image_finder.components.configs.slices import SLICES
from image_finder.components.configs.training import TrainingConfig
