"""What the two networks of a GAN are trained with."""

from torch import ones_like, zeros_like
from torch.nn.functional import binary_cross_entropy


class DiscriminatorLoss:
    def __init__(self, discriminator):
        self.discriminator = discriminator

    def __call__(self, fakes, reals):
        on_fakes, on_reals = self.discriminator(fakes.detach()), self.discriminator(reals)
        return binary_cross_entropy(on_fakes, zeros_like(on_fakes)) + binary_cross_entropy(
            on_reals, ones_like(on_reals)
        )


class GeneratorLoss:
    def __init__(self, discriminator):
        self.discriminator = discriminator

    def __call__(self, fakes):
        answer = self.discriminator(fakes)
        return binary_cross_entropy(answer, ones_like(answer))
