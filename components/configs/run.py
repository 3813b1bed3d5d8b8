"""Parameters of each pipeline: the only list of its configurations; YAML files, pipelines and registry follow it."""

from pydantic import Field

from image_finder.components.configs.base import Config
from image_finder.components.configs.data import DatasetConfig, SplitConfig, ValidationConfig
from image_finder.components.configs.drift import DriftConfig
from image_finder.components.configs.embedding import EmbeddingConfig, GalleryConfig
from image_finder.components.configs.evaluation import EvaluationConfig, ExportConfig, RegistryConfig
from image_finder.components.configs.model import ModelConfig
from image_finder.components.configs.training import TrainingConfig


class TrainingParameters(Config):
    """All parameters of a training: everything that its results depend on."""

    dataset: DatasetConfig
    validation: ValidationConfig = Field(default_factory=ValidationConfig)
    split: SplitConfig = Field(default_factory=SplitConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)
    registry: RegistryConfig = Field(default_factory=RegistryConfig)
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
    drift: DriftConfig = Field(default_factory=DriftConfig)

    def parts(self) -> dict[str, Config]:
        """The configs by name, as a training's YAML names them."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class IndexingParameters(Config):
    """All parameters of an indexing."""

    gallery: GalleryConfig
    registry: RegistryConfig = Field(default_factory=RegistryConfig)
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
