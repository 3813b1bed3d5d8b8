"""Training loop: trains a dual encoder on a train set and validates each epoch; knows nothing of ZenML or MLflow.

A training that is killed at any moment resumes after its last finished epoch and ends like an uninterrupted one: batches
are a function of (seed, epoch), and each epoch reseeds torch's generator for dropout.

Several ranks do what one process would do with the whole batch: all plan the same batches, take their shares of them
and make the same step with the summed gradient. Only rank 0 validates and writes.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from image_finder.components.configs import TrainingConfig
from image_finder.components.encoders.dual_encoder import DualEncoder
from image_finder.components.encoders.folded_norms import folded_norms
from image_finder.components.encoders.loss import contrastive_loss, contrastive_share
from image_finder.components.errors import ConfigError, DataError, StorageError
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import named_recalls
from image_finder.components.progress_bar import progress_bar
from image_finder.components.records.training import EpochRecord
from image_finder.components.text import counted
from image_finder.components.training import resume
from image_finder.components.training.batches import (
    Batch,
    BatchPlan,
    batches_of_epoch,
    loaded_batches,
    plan_epoch,
    share_of_batch,
    smallest_batch,
)
from image_finder.components.training.distributed.ranks import ALONE, Ranks
from image_finder.components.training.distributed.shared_batch_norm import share_batch_norms
from image_finder.components.training.memory import freed_memory_kept
from image_finder.components.training.optimization import adamw, moving_average, rate_factor
from image_finder.components.training.soft_targets import Teacher, distillation_share
from image_finder.components.training.sources import PairedSet, TextInput, embed_all

if TYPE_CHECKING:
    from tqdm import tqdm

_VAL_KS = (1, 5, 10)
_CPU_IMAGES = 64  # in a pass through a tail; the activations of 256 take 5 to 8 % longer
_CPU_TEXTS = 128  # in a pass through the text heads; padded to its own longest text, a batch takes a third of the time

OnEpoch = Callable[[EpochRecord], None]


class Trained(NamedTuple):
    """A model with the weights of epoch `epoch`: the best with early stopping, else the last."""

    model: DualEncoder
    history: tuple[EpochRecord, ...]
    epoch: int


def train(
    model: DualEncoder,
    train_set: PairedSet,
    val_set: PairedSet,
    config: TrainingConfig,
    *,
    work: Path,
    identity: str,
    on_epoch: OnEpoch = lambda _: None,
    progress: bool = False,
    ranks: Ranks = ALONE,
) -> Trained:
    """Train the trainable parts of a model and return it on the CPU.

    work: directory of the resumable state; identity: hash of data, configuration and code, only such a state is
    resumed. on_epoch receives every epoch in order; a resumed training repeats the epochs finished before. All ranks
    get the same arguments. Raises ConfigError for a missing device, DataError for a set without images, StorageError,
    ProcessError if another rank fails.
    """
    for name, data in (("train", train_set), ("val", val_set)):
        if len(data.images) == 0:
            raise DataError(f"the {name} set is empty; training needs at least 2 images, validation 1")
    if len(train_set.images) < 2:
        raise DataError("the train set has 1 image; training needs at least 2")
    _require_shares(len(train_set.images), config, ranks)
    run = _Run(model, config, batches_of_epoch(len(train_set.images), config.batch_images), ranks)
    with resume.only_one(work) if ranks.leads else contextlib.nullcontext(), freed_memory_kept(), run.folded_norms():
        state = run.resume(work, identity)
        run.require_same("at the start")
        for record in state.history:
            on_epoch(record)
        with run.bar(state.history, shown=progress and ranks.leads) as bar:
            while state.epochs_done < config.epochs and not _out_of_patience(state, config):
                record = run.epoch(train_set, val_set, state.epochs_done, bar)
                history = (*state.history, record)
                best = max(history, key=lambda r: r.val_mean_recall).epoch  # the first of equals
                state = resume.Progress(
                    identity=identity, history=history, best_epoch=best if config.patience_epochs else record.epoch
                )
                if ranks.leads:
                    resume.save(work, state, run.tensors())
                on_epoch(record)
        ranks.broadcast()  # wait until rank 0 has written the last epoch
        kept = work / f"epoch-{state.best_epoch:04d}"
        model.load_state_dict(resume.load(kept, "average" if config.ema_decay else "model"))
    return Trained(model.cpu().eval(), state.history, state.best_epoch)


class _Run:
    def __init__(self, model: DualEncoder, config: TrainingConfig, steps_of_epoch: int, ranks: Ranks = ALONE) -> None:
        self.config = config
        self.ranks = ranks
        self.device = pick_device(config.device)
        if not ranks.alone and model.image_tower.learns_whole_trunk:
            share_batch_norms(model)
        self.model = model.to(self.device)
        if self.device.type == "cuda":
            self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizer = adamw(self.model, config, fused=self.device.type == "cuda")
        self.total_steps = steps_of_epoch * config.epochs
        self.average = (
            AveragedModel(self.model, multi_avg_fn=moving_average(config.ema_decay), use_buffers=True)
            if config.ema_decay
            else None
        )

    def resume(self, work: Path, identity: str) -> resume.Progress:
        found = resume.latest(work, identity)
        epochs_done = found[1].epochs_done if found else 0
        lead_epochs = int(self.ranks.broadcast(str(epochs_done)))
        if lead_epochs != epochs_done:
            raise StorageError(
                f"{work} has {counted(epochs_done, 'finished epoch')} here and {lead_epochs} on the host of process 0; "
                "it must be on a file system that all hosts share"
            )
        if found is None:
            return resume.Progress(identity=identity)
        folder, state = found
        self.model.load_state_dict(resume.load(folder, "model"))
        resume.restore_optimizer(self.optimizer, resume.load(folder, "optimizer"))
        if self.average is not None:
            self.average.module.load_state_dict(resume.load(folder, "average"))
            self.average.n_averaged.fill_(self.total_steps // self.config.epochs * state.epochs_done)
        return state

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        tensors = {"model": self.model.state_dict(), "optimizer": resume.optimizer_tensors(self.optimizer)}
        if self.average is not None:
            tensors["average"] = self.average.module.state_dict()
        return tensors

    def require_same(self, when: str) -> None:
        self.ranks.require_same((t for stem in self.tensors().values() for t in stem.values()), when)

    def bar(self, history: Sequence[EpochRecord], *, shown: bool) -> "tqdm[Any]":
        """Of the batches of all epochs; a part of the time is validation, so that its rate is a mean."""
        batches = self.total_steps * len(self.model.image_tower.tails)
        return progress_bar(
            total=batches,
            initial=batches // self.config.epochs * len(history),
            postfix=epoch_text(history[-1]) if history else None,
            smoothing=0,
            unit="",
            shown=shown,
        )

    def epoch(self, train_set: PairedSet, val_set: PairedSet, index: int, bar: "tqdm[Any]") -> EpochRecord:
        config = self.config
        torch.manual_seed(self.ranks.seed(config.seed * 1_000_003 + index))
        self.model.train()
        started = time.perf_counter()
        plans = self._plans(train_set, index)
        n_tails = len(self.model.image_tower.tails)
        first = index * len(plans) // n_tails
        losses = []
        shares = [share_of_batch(plan, self.ranks.rank, self.ranks.world).own for plan in plans]
        bar.set_description(f"epoch {index + 1} of {config.epochs}")
        for number, batch in enumerate(loaded_batches(shares, train_set, config, self.device)):
            step, tail = divmod(number, n_tails)
            losses.append(self._step(train_set, batch, plans[number], first + step, tail))
            bar.update()
        loss = float(self.ranks.total(torch.stack(losses)).mean())
        seconds = time.perf_counter() - started
        if not torch.isfinite(torch.tensor(loss)):
            raise DataError(
                f"the loss of epoch {index + 1} is {loss}; lower head_rate ({config.head_rate}) or clip_norm ({config.clip_norm})"
            )
        self.require_same(f"after epoch {index + 1}")
        if not self.ranks.leads:
            return EpochRecord.model_validate_json(self.ranks.broadcast())
        recall = self._recall(val_set)
        record = EpochRecord(
            epoch=index + 1,
            loss=loss,
            head_rate=self.optimizer.param_groups[0]["lr"],
            trunk_rate=self.optimizer.param_groups[2]["lr"],
            logit_scale=float(self.model.logit_scale().detach()),
            images_per_s=len(train_set.images) / seconds,
            seconds=seconds,
            val_recall=recall,
            val_mean_recall=sum(recall.values()) / len(recall),
        )
        bar.set_postfix_str(epoch_text(record))
        self.ranks.broadcast(record.model_dump_json())
        return record

    def _recall(self, val_set: PairedSet) -> dict[str, float]:
        vectors = embed_all(self.averaged_model, val_set, device=self.device)
        return named_recalls(first_match_ranks(*vectors, val_set.image_of_caption), _VAL_KS)

    @property
    def averaged_model(self) -> DualEncoder:
        module = self.average.module if self.average is not None else self.model
        assert isinstance(module, DualEncoder)
        return module

    def _plans(self, train_set: PairedSet, index: int) -> list[BatchPlan]:
        """Batches of an epoch, in turn for each tail: equal batches would give equal errors."""
        config = self.config
        of_tails = [
            plan_epoch(
                train_set.image_of_caption,
                batch_images=config.batch_images,
                captions_per_image=config.captions_per_image,
                seed=config.seed + tail * 1_000_003,
                epoch=index,
                views=config.augmented_views,
            )
            for tail in range(len(self.model.image_tower.tails))
        ]
        return [plan for step in zip(*of_tails, strict=True) for plan in step]

    def _step(self, data: PairedSet, batch: Batch, plan: BatchPlan, step: int, tail: int) -> Tensor:
        """Train one tail and its heads on a batch; returns the loss. A step visits all tails."""
        warmup = int(self.config.warmup_share * self.total_steps)
        factor = rate_factor(step, total_steps=self.total_steps, warmup_steps=warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        tower = self.model.image_tower
        with self._autocast():
            images = self._image_vectors(data, batch.images, tail)
            texts = self._text_vectors(data, batch.texts, tail)
        pairs = zip(images, texts, strict=True)
        teacher = self._teacher(data, plan)
        loss = torch.stack(
            [self._loss(image.float(), text.float(), batch, plan, teacher) for image, text in pairs]
        ).mean()
        loss.backward()
        learned = [
            p for p in self.model.parameters() if p.grad is not None
        ]  # the tail, its heads and what all tails share
        self.ranks.sum_gradients(learned)
        nn.utils.clip_grad_norm_(learned, self.config.clip_norm)
        self.optimizer.step()
        self.model.logit_scale.clamp_()
        if self.average is not None and tail == len(tower.tails) - 1:
            self.average.update_parameters(self.model)
        return loss.detach()

    def _image_vectors(self, data: PairedSet, images: Tensor, tail: int) -> list[Tensor]:
        """Unit vectors (N, head_dim) of each head of a tail, of loaded images."""
        tower = self.model.image_tower
        # Statistics of batch norms that learn are those of the whole batch.
        size = len(images) if tower.learns_whole_trunk or self.device.type != "cpu" else _CPU_IMAGES
        parts = [tower.branch(data.images.features(self.model, part), tail) for part in images.split(size)]
        return [torch.cat(of_head) for of_head in zip(*(part.vectors for part in parts), strict=True)]

    def _text_vectors(self, data: PairedSet, texts: TextInput, tail: int) -> list[Tensor]:
        """Unit vectors (N, head_dim) of the text heads of a tail, of loaded texts; on the CPU those of similar length together."""
        heads = self.model.image_tower.heads_of(tail)
        lengths = texts.mask.sum(dim=1)
        order = lengths.argsort(stable=True)
        parts = []
        for rows in order.split(_CPU_TEXTS if self.device.type == "cpu" else len(order)):
            longest = int(lengths[rows[-1]])
            part = TextInput(texts.values[rows, :longest], texts.mask[rows, :longest])
            hidden = data.texts.features(self.model, part)
            parts.append(self.model.text_tower.head_vectors(hidden, part.mask, heads))
        positions = order.argsort()
        return [torch.cat(of_head)[positions] for of_head in zip(*parts, strict=True)]

    def folded_norms(self) -> AbstractContextManager[None]:
        tower = self.model.image_tower
        return contextlib.nullcontext() if tower.learns_whole_trunk else folded_norms(tower.tails)

    def _teacher(self, data: PairedSet, plan: BatchPlan) -> Teacher | None:
        rows = torch.from_numpy(plan.image_rows), torch.from_numpy(plan.caption_rows)
        return None if data.teacher is None else data.teacher.of_batch(*rows, self.device)

    def _loss(
        self, images: Tensor, texts: Tensor, batch: Batch, plan: BatchPlan, teacher: Teacher | None = None
    ) -> Tensor:
        """Loss of one head, or this rank's share; images, texts: this rank's, plan, teacher: whole batch."""
        smoothing = self.config.label_smoothing
        images = self.model.product_scale * images
        if self.ranks.alone and teacher is None:
            return contrastive_loss(self.model.logits(images, texts), batch.image_of_text, label_smoothing=smoothing)
        share = share_of_batch(plan, self.ranks.rank, self.ranks.world)
        vectors = (
            self.ranks.gathered(images, share.images.start, len(plan.image_rows)),
            self.ranks.gathered(texts, share.texts.start, len(plan.caption_rows)),
        )
        image_of_text = torch.from_numpy(plan.image_of_text).to(self.device)
        rows = (share.images, share.texts)
        scale = self.model.logit_scale()
        loss = contrastive_share(scale, vectors, image_of_text, rows, label_smoothing=smoothing)
        if teacher is None:
            return loss
        weight = self.config.teacher_weight
        return (1 - weight) * loss + weight * distillation_share(scale, vectors, teacher, rows)

    def _autocast(self) -> AbstractContextManager[None]:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


def pick_device(device: str) -> torch.device:
    """Torch device for "auto", "cpu" or "cuda". Raises ConfigError if there is no CUDA device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device: cuda, but torch finds no CUDA device; use auto or cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def epoch_text(record: EpochRecord) -> str:
    """What a bar shows of the last finished epoch."""
    return f"loss {record.loss:.2f}, val recall {100 * record.val_mean_recall:.1f} %"


def _require_shares(n_images: int, config: TrainingConfig, ranks: Ranks) -> None:
    smallest = smallest_batch(n_images, config.batch_images)
    if smallest < ranks.world:
        raise ConfigError(
            f"training.processes ({ranks.world}) is above the {smallest} images of the smallest batch; "
            f"set fewer processes or raise batch_images ({config.batch_images})"
        )


def _out_of_patience(state: resume.Progress, config: TrainingConfig) -> bool:
    return bool(config.patience_epochs) and state.epochs_done - state.best_epoch >= config.patience_epochs
