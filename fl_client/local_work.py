"""How much a site trains in a round: the job's epochs or steps, or the site's own epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fl_client.site import Site
from mmar_runtime.errors import MmarError
from mmar_runtime.exchange.weighing import WeighBy


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWork:
    """What a job asks of a site in each round.

    Attributes:
        epochs: epochs that a round trains.
        steps: optimizer steps that a round trains in place of epochs; 0 means whole epochs.
        weigh_by: what the site claims as its weight in the mean.
        shared: names of the tensors that the sites share, with ``*`` for any characters; None for
            all.
    """

    epochs: int = 1
    steps: int = 0
    weigh_by: WeighBy = "samples"
    shared: list[str] | None = None

    def __post_init__(self) -> None:
        if self.steps < 0 or (self.steps == 0 and self.epochs < 1):
            raise MmarError(
                f"local_epochs={self.epochs}, steps_aggregation={self.steps}: a round needs at "
                "least one epoch, or a positive number of steps"
            )

    def at(self, site: Site) -> LocalWork:
        """Return the work with the site's own number of epochs, if the site has one.

        Raises:
            ConfigError: the site's number is not a positive whole number.
        """
        return replace(self, epochs=site.local_epochs(self.epochs))
