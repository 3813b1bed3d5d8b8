"""Ranks: collective operations among the workers of one training; knows nothing of towers or losses.

All operations are sums. Each rank's loss is its share of the batch's loss, divided by the counts of the whole batch, so
that the sum over ranks equals the loss, and the summed gradients equal the gradient, of one process with that batch.
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
from image_finder.components.text import counted, one_line

# Longer than rank 0 ever takes to validate or to compute features. If rank 0 dies meanwhile, the connection breaks and
# the launcher ends the other workers.
_LONG_WAIT = timedelta(hours=24)
_BUCKET_ELEMENTS = 1 << 24  # 64 MiB of float32: large enough for full speed, small beside a model's memory


@dataclass(frozen=True)
class Assignment:
    """A worker's rank among all `world` workers and its local rank on its host, both from 0."""

    rank: int
    world: int
    local_rank: int


@dataclass(frozen=True)
class Ranks:
    """One worker's view of its training; by default the only worker, without communication."""

    rank: int = 0
    world: int = 1
    long_wait: dist.ProcessGroup | None = None  # over gloo, with a timeout of 24 hours

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, the only one that validates, writes and reports."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.world == 1

    def seed(self, shared: int) -> int:
        """Derive this rank's seed from a shared one; rank 0 uses the shared one."""
        # 32 bits: torch's CPU generator ignores the rest
        return int(np.random.SeedSequence((shared, self.rank)).generate_state(1)[0]) if self.rank else shared

    def broadcast(self, text: str = "") -> str:
        """Send rank 0's text to all ranks and return it; also a barrier, with a long timeout."""
        if self.alone:
            return text
        data = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())
        size = torch.tensor([len(data)])
        with _connection():
            dist.broadcast(size, 0, group=self.long_wait)
            data = data if self.leads else torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(data, 0, group=self.long_wait)
        return data.numpy().tobytes().decode()

    @contextlib.contextmanager
    def lead_first(self) -> Iterator[None]:
        """Run the block on rank 0 first, then on all others."""
        if not self.leads:
            self.broadcast()
        yield
        if self.leads:
            self.broadcast()

    def gathered(self, own: Tensor, start: int, total: int) -> Tensor:
        """Rows of all ranks with gradients: (total, width). own: this rank's, from row `start`.

        Sums zero-padded matrices: shares may be uneven, and the extra traffic is small beside that of the gradients.
        """
        if self.alone:
            return own
        before, after = start, total - start - len(own)
        return summed(functional.pad(own, (0, 0, before, after)))

    def total(self, values: Tensor) -> Tensor:
        """Sum over ranks, without gradients."""
        return values if self.alone else _all_reduced(values)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over ranks, added in the same order at every step."""
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
        """Raise ProcessError if the float64 sums of a rank's tensors differ from rank 0's."""
        if self.alone:
            return
        sums = torch.stack([tensor.detach().double().sum().cpu() for tensor in tensors]).view(torch.int64)
        everyone = [torch.empty_like(sums) for _ in range(self.world)]
        with _connection():
            dist.all_gather(everyone, sums, group=self.long_wait)
        differing = [rank for rank, others in enumerate(everyone) if not torch.equal(others, everyone[0])]
        if differing:
            raise ProcessError(
                f"the weights of process {differing[0]} differ from those of process 0 {when}; "
                "use the same kind of device and the same versions on all hosts"
            )


ALONE = Ranks()


@contextlib.contextmanager
def joined(assignment: Assignment, config: TrainingConfig) -> Iterator[Ranks]:
    """Join the other workers, over NCCL on GPUs and gloo on CPUs. Raises ConfigError.

    The launcher has set MASTER_ADDR and MASTER_PORT.
    """
    if assignment.world != config.processes:
        raise ConfigError(
            f"training.processes is {config.processes}, but {assignment.world} were started; start that many or change it"
        )
    cuda = config.device != "cpu" and torch.cuda.is_available()
    if cuda:
        require_gpus(assignment.local_rank + 1)
        torch.cuda.set_device(assignment.local_rank)
    with _connection():
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            rank=assignment.rank,
            world_size=assignment.world,
            timeout=timedelta(seconds=config.wait_s),
            device_id=torch.device("cuda", assignment.local_rank) if cuda else None,
        )
        long_wait = dist.new_group(backend="gloo", timeout=_LONG_WAIT)
    assert isinstance(long_wait, dist.ProcessGroup), "every rank is a member"
    ranks = Ranks(assignment.rank, assignment.world, long_wait)
    yield ranks
    ranks.broadcast()  # wait until rank 0 has written everything
    dist.destroy_process_group()


def require_gpus(processes: int) -> None:
    """Raise ConfigError if this host has fewer GPUs than processes."""
    if processes > torch.cuda.device_count():
        raise ConfigError(
            f"training.processes: {processes} on this host, which has {counted(torch.cuda.device_count(), 'GPU')}; "
            "set at most one process per GPU, or device to cpu"
        )


def summed(values: Tensor) -> Tensor:
    """Differentiable sum over ranks; the gradient is the sum of all ranks' gradients."""
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
    """Turn torch's errors about a lost or unresponsive worker into a ProcessError."""
    try:
        yield
    except RuntimeError as error:  # its subclasses too: DistBackendError, DistNetworkError
        reason = one_line(error).split(". ")[0]
        raise ProcessError(f"lost the connection to the other processes, or one timed out: {reason}") from error
