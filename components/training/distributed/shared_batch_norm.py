"""Batch norm over the batches of all ranks: same statistics and gradients as one process with the whole batch.

Needed only if the whole trunk learns; otherwise batch norms keep their pre-trained statistics (ImageTower.train).
"""

from timm.layers.norm_act import SyncBatchNormAct, convert_sync_batchnorm
from torch import Tensor, nn

from image_finder.components.training.distributed.ranks import summed


def share_batch_norms(model: nn.Module) -> None:
    """Replace the batch norms of a model in place; state dicts stay compatible."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - timm and torch test for it too
                setattr(module, name, _shared(child))


def _shared(norm: nn.Module) -> nn.Module:
    converted: nn.Module = convert_sync_batchnorm(norm)  # keeps the activation inside timm's norms
    converted.__class__ = _SharedBatchNorm
    return converted


class _SharedBatchNorm(SyncBatchNormAct):
    """torch's implementation on a GPU, our own on the CPU, where torch 2.14 has none."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or not self.training:
            result: Tensor = super().forward(x)
            return result
        x = self._normalised(x)
        for name in ("drop", "act"):
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x

    def _normalised(self, given: Tensor) -> Tensor:
        x = given.float()  # as torch does, also under autocast
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
