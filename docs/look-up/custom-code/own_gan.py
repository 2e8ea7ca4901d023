import torch


class DiscriminatorLoss:
    def __init__(self, discriminator):
        self.discriminator = discriminator

    def __call__(self, fakes, reals):
        on_fakes = self.discriminator(fakes.detach())
        on_reals = self.discriminator(reals)
        loss = torch.nn.functional.binary_cross_entropy
        return loss(on_fakes, torch.zeros_like(on_fakes)) + loss(
            on_reals, torch.ones_like(on_reals)
        )


class GeneratorLoss:
    def __init__(self, discriminator):
        self.discriminator = discriminator

    def __call__(self, fakes):
        answer = self.discriminator(fakes)
        return torch.nn.functional.binary_cross_entropy(answer, torch.ones_like(answer))
