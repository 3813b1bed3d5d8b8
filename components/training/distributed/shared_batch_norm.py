"""Batch norm over the batch of all ranks: statistics and gradients are those of one process with the whole batch.

Only a trunk that learns as a whole needs it; all others keep their pre-trained statistics (ImageTower.train).
"""

from timm.layers.norm_act import SyncBatchNormAct, convert_sync_batchnorm
from torch import Tensor, nn

from image_finder.components.training.distributed.ranks import summed


def share_batch_norms(model: nn.Module) -> None:
    """Replace, in place, the batch norms of a model; names and parameters stay, so state dicts fit both ways."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - what timm and torch ask too
                setattr(module, name, _shared(child))


def _shared(norm: nn.Module) -> nn.Module:
    converted: nn.Module = convert_sync_batchnorm(norm)  # keeps the activation that timm's norms bring along
    converted.__class__ = _SharedBatchNorm
    return converted


class _SharedBatchNorm(SyncBatchNormAct):
    """torch's on a GPU; torch 2.14 has none for the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        if x.is_cuda or not self.training:
            result: Tensor = super().forward(x)
            return result
        x = self._normalised(x)
        for name in ("drop", "act"):
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x

    def _normalised(self, given: Tensor) -> Tensor:
        x = given.float()  # under autocast to bfloat16 too, as torch's do
        count = summed(x.new_tensor([x.numel() // x.shape[1]]))
        mean = summed(x.sum((0, 2, 3))) / count
        centred = x - mean.view(1, -1, 1, 1)
        variance = summed(centred.square().sum((0, 2, 3))) / count
        self._track(mean.detach(), (variance * count / (count - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(given.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
