from ignite.engine import EventEnum, Events
from monai.engines import SupervisedTrainer

from mmar_runtime.components.compat import AdditionalEvents


class OldEvents(EventEnum):
    ACCUMULATED = "accumulated"


class OldTrainer(AdditionalEvents, SupervisedTrainer):
    def _register_additional_events(self):
        super()._register_additional_events()
        self.register_events(*OldEvents)


class FireAccumulated:
    def attach(self, engine):
        engine.state.accumulated = 0
        engine.add_event_handler(OldEvents.ACCUMULATED, self.count)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.fire)

    def fire(self, engine):
        engine.fire_event(OldEvents.ACCUMULATED)

    def count(self, engine):
        engine.state.accumulated += 1
