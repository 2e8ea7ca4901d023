"""Networks that answer with a list while they learn, and with one tensor afterwards."""

from __future__ import annotations

import torch
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
