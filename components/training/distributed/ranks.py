"""Ranks: the processes of one training and what passes between them; knows nothing of towers or losses.

Everything is summed, never averaged: each rank's loss is its share of the whole batch's loss, divided by the whole
batch's counts. A sum over ranks is then the loss, and the sum of their gradients the gradient, of one process with the
whole batch, without any factor of the number of ranks.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional

from image_finder.components.configs import TrainingConfig
from image_finder.components.errors import ConfigError, ProcessError
from image_finder.components.text import one_line

# Whoever waits for rank 0's validation or features waits on a connection that breaks when rank 0 dies, and under a
# launcher that then ends all: this limit only has to be longer than any of both takes.
_PATIENCE = timedelta(hours=24)
_BUCKET_ELEMENTS = 1 << 24  # 64 MiB of float32: large enough for full speed, small beside a model's memory


@dataclass(frozen=True)
class Place:
    """Where a launcher put this process. rank: among all, from 0; local_rank: on its host, from 0."""

    rank: int
    world: int
    local_rank: int


@dataclass(frozen=True)
class Ranks:
    """A process among those of its training; alone by default, when nothing here does anything."""

    rank: int = 0
    world: int = 1
    patient: dist.ProcessGroup | None = None  # over gloo, for waits of any length

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone validates, writes and reports."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.world == 1

    def seed(self, shared: int) -> int:
        """A seed of its own for each rank from one that all share; rank 0 keeps it."""
        # mixed into 32 bits, which is all that torch's generator on the CPU looks at
        return int(np.random.SeedSequence((shared, self.rank)).generate_state(1)[0]) if self.rank else shared

    def tell(self, text: str = "") -> str:
        """What rank 0 says, on every rank; the others wait for it as long as it takes."""
        if self.alone:
            return text
        said = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())
        size = torch.tensor([len(said)])
        with _connection():
            dist.broadcast(size, 0, group=self.patient)
            said = said if self.leads else torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(said, 0, group=self.patient)
        return said.numpy().tobytes().decode()

    @contextlib.contextmanager
    def lead_first(self) -> Iterator[None]:
        """Rank 0 goes through the block alone, then the others do."""
        if not self.leads:
            self.tell()
        yield
        if self.leads:
            self.tell()

    def gathered(self, own: Tensor, start: int, total: int) -> Tensor:
        """The rows of all ranks, (total, width), of which (n, width) from `start` on are this one's; with gradients.

        A sum of zero-filled matrices: twice the traffic of a gather, which is little beside the gradients', and
        shares may be uneven.
        """
        if self.alone:
            return own
        before, after = start, total - start - len(own)
        return summed(functional.pad(own, (0, 0, before, after)))

    def total(self, values: Tensor) -> Tensor:
        """Sum over ranks, without gradients."""
        if self.alone:
            return values
        values = values.clone()
        with _connection():
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over ranks.

        The buckets are the same at every step, so that a resumed training adds up in the same order.
        """
        if self.alone:
            return
        pending = []
        with _connection():
            for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
                flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
                pending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
            for bucket, flat, work in pending:
                work.wait()
                for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                    gradient.copy_(part.view(gradient.shape))

    def require_same(self, tensors: Iterable[Tensor], when: str) -> None:
        """Raise ProcessError if a rank's tensors differ from rank 0's, by their sums in float64."""
        if self.alone:
            return
        sums = torch.stack([tensor.detach().double().sum().cpu() for tensor in tensors]).view(torch.int64)
        everyone = [torch.empty_like(sums) for _ in range(self.world)]
        with _connection():
            dist.all_gather(everyone, sums, group=self.patient)
        differing = [rank for rank, others in enumerate(everyone) if not torch.equal(others, everyone[0])]
        if differing:
            raise ProcessError(
                f"process {differing[0]} holds other weights than process 0 {when}; "
                "use the same kind of device and the same versions on all hosts"
            )


ALONE = Ranks()


@contextlib.contextmanager
def joined(place: Place, config: TrainingConfig) -> Iterator[Ranks]:
    """The ranks of a training that a launcher started, with torch's variables MASTER_ADDR and MASTER_PORT set.

    On GPUs over NCCL, else over gloo. Raises ConfigError.
    """
    if place.world != config.processes:
        raise ConfigError(
            f"training.processes is {config.processes}, but {place.world} were started; start that many or change it"
        )
    cuda = config.device != "cpu" and torch.cuda.is_available()
    if cuda:
        require_gpus(place.local_rank + 1)
        torch.cuda.set_device(place.local_rank)
    with _connection():
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            rank=place.rank,
            world_size=place.world,
            timeout=timedelta(seconds=config.wait_s),
            device_id=torch.device("cuda", place.local_rank) if cuda else None,
        )
        patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(patient, dist.ProcessGroup), "every rank is a member"
    ranks = Ranks(place.rank, place.world, patient)
    yield ranks
    ranks.tell()  # nobody leaves before rank 0 has written everything
    dist.destroy_process_group()


def require_gpus(processes: int) -> None:
    """Raise ConfigError if this host has fewer GPUs than processes."""
    if processes > torch.cuda.device_count():
        raise ConfigError(
            f"training.processes: {processes} on this host, which has {torch.cuda.device_count()} GPUs; "
            "start no more than there are, or set device to cpu"
        )


def summed(values: Tensor) -> Tensor:
    """Sum over ranks that passes gradients on: what any rank's loss wants of the sum, each addend gets."""
    total: Tensor = _Sum.apply(values)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: object, values: Tensor) -> Tensor:
        return _all_reduced(values)

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        return _all_reduced(gradient)


def _all_reduced(values: Tensor) -> Tensor:
    total = values.contiguous().clone()
    with _connection():
        dist.all_reduce(total)
    return total


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    elements = 0
    for gradient in gradients:
        if bucket and elements + gradient.numel() > _BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(gradient)
        elements += gradient.numel()
    if bucket:
        yield bucket


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """Turn what torch raises when another process is gone or silent into a ProcessError."""
    try:
        yield
    except RuntimeError as error:  # its subclasses too: DistBackendError, DistNetworkError
        reason = one_line(error).split(". ")[0]
        raise ProcessError(f"the connection to the other processes broke or one fell silent: {reason}") from error
