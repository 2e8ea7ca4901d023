from ignite.engine import Events


class StopBelow:
    def __init__(self, loss):
        self.loss = loss

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine):
        # After decollation the output is a list: one dictionary for each case of the batch, each
        # with the batch's loss.
        if engine.state.output[0]["loss"] < self.loss:
            engine.terminate()
