"""Networks that answer with a list while they learn, and with one tensor afterwards."""

from __future__ import annotations

import torch
from monai.losses import DeepSupervisionLoss
from monai.networks.nets import BasicUNetPlusPlus


class SingleAnswerUNetPlusPlus(BasicUNetPlusPlus):
    """MONAI's UNet++, which answers with its deepest output wherever no loss takes them all.

    MONAI's own always answers with a list, which neither post transforms nor metrics take. DynUNet
    and SegResNetDS answer with one tensor in evaluation too.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return all outputs while training with deep supervision, else the deepest output.

        Args:
            x: (batch, channel, spatial...).
        """
        outputs: list[torch.Tensor] = super().forward(x)
        return outputs if self.training and self.deep_supervision else outputs[-1]


class StackedDeepSupervisionLoss(DeepSupervisionLoss):
    """MONAI's loss of several outputs, which takes them stacked as well, as DynUNet gives them."""

    def forward(
        self, input: torch.Tensor | list[torch.Tensor] | None, target: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted sum over the outputs.

        Args:
            input: a list of outputs, or (batch, output, channel, spatial...) of one size.
            target: (batch, channel, spatial...).
        """
        if isinstance(input, torch.Tensor) and input.ndim == target.ndim + 1:
            input = list(input.unbind(1))
        loss: torch.Tensor = super().forward(input, target)
        return loss
