from ignite.engine import EventEnum
from monai.engines import SupervisedTrainer


class StepEvents(EventEnum):
    STEP_DONE = "step_done"


class SteppingTrainer(SupervisedTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, event_names=[StepEvents], **kwargs)

    def _iteration(self, engine, batchdata):
        output = super()._iteration(engine, batchdata)
        engine.fire_event(StepEvents.STEP_DONE)
        return output


class CountSteps:
    def attach(self, engine):
        engine.state.steps = 0
        engine.add_event_handler(StepEvents.STEP_DONE, self)

    def __call__(self, engine):
        engine.state.steps += 1
