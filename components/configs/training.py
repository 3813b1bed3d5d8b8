"""Configuration of the optimisation."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from image_finder.components.configs.base import Config


class TrainingConfig(Config):
    """Optimisation of the dual encoder."""

    former_names: ClassVar = {"views": "augmented_views"}

    epochs: int = Field(6, ge=1)
    batch_images: int = Field(512, ge=2, description="images in a batch")
    captions_per_image: int = Field(
        2, ge=1, description="captions of each image in a batch; later epochs use the others"
    )
    augmented_views: int = Field(
        1,
        ge=1,
        le=64,
        description="views of each image, used in turn over the epochs: the image itself, then random crops; all are cached",
    )
    head_rate: float = Field(1e-3, gt=0, description="peak learning rate of pooling and projections")
    trunk_rate: float = Field(1e-4, gt=0, description="peak learning rate of trunk stages that learn")
    weight_decay: float = Field(0.05, ge=0)
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="share of the optimizer steps in linear warm-up; cosine to zero after it"
    )
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of the weights per step; 0: off")
    teacher: tuple[Path, ...] = Field(
        (), description="bundles whose similarities of a batch's images and captions are targets; several are averaged"
    )
    teacher_weight: float = Field(
        0.5, gt=0, le=1, description="share of the loss towards the teacher's similarities; the rest is contrastive"
    )
    patience_epochs: int = Field(
        0,
        ge=0,
        description="epochs without a better mean recall on val after which training stops and keeps the best epoch; 0: keep the last epoch",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = Field("float32", description="autocast type; bfloat16 is for cuda")
    loader_workers: int = Field(2, ge=0, description="decoding processes per training process, if whole trunks learn")
    seed: int = Field(0, ge=0)
    processes: int = Field(1, ge=1, description="training processes on all hosts together; one per GPU")
    hosts: int = Field(1, ge=1, description="hosts; each has the same number of processes")
    rendezvous: str = Field(
        "",
        pattern=r"^([^\s/]+:\d{1,5})?$",
        description="host:port at which processes of several hosts connect; the host is that of the training step",
    )
    restarts: int = Field(1, ge=0, description="restarts from the last finished epoch after a process of several died")
    wait_s: int = Field(600, ge=30, description="longest wait of a process for the others, seconds")

    @model_validator(mode="after")
    def _processes_share_hosts_and_batches(self) -> Self:
        if self.processes % self.hosts:
            raise ValueError(f"processes ({self.processes}) must be a multiple of hosts ({self.hosts})")
        if self.processes > self.batch_images:
            raise ValueError(f"processes ({self.processes}) must not be above batch_images ({self.batch_images})")
        if self.hosts > 1 and not self.rendezvous:
            raise ValueError(f"rendezvous must name host:port when hosts is above 1 ({self.hosts})")
        return self
