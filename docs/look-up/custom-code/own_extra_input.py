import torch
from ignite.engine import Events


class TwoInputNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv3d(2, 2, kernel_size=1)
        self.extra = None

    def forward(self, image):
        extra = self.extra if self.training else torch.zeros_like(image)
        return self.layer(torch.cat([image, extra], dim=1))


class ExtraInput:
    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine):
        engine.network.extra = engine.state.batch["extra"].to(engine.state.device)
