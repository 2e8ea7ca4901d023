from medl.engines.iterations import Iteration


class AccumulateGradients(Iteration):
    """An optimizer step after every few batches."""

    def __init__(self, batches):
        self.batches = batches

    def __call__(self, engine, batchdata):
        image, label = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        engine.network.train()
        pred = engine.inferer(image, engine.network)
        loss = engine.loss_function(pred, label)
        (loss / self.batches).backward()
        if engine.state.iteration % self.batches == 0:
            engine.optimizer.step()
            engine.optimizer.zero_grad()
        return {"image": image, "label": label, "pred": pred, "loss": loss}
