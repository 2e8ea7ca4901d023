"""The parts of the network."""

import torch


def block(dimensions, in_channels, out_channels):
    convolution = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dimensions]
    return torch.nn.Sequential(
        convolution(in_channels, out_channels, kernel_size=3, padding=1), torch.nn.LeakyReLU()
    )
