from ignite.engine import Events


class StopAtLowLoss:
    def __init__(self, loss):
        self.loss = loss

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine):
        if engine.state.output["loss"] < self.loss:
            engine.terminate()
