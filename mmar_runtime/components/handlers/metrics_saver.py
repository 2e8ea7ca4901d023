"""MONAI's MetricsSaver with the classes' own names, and the counts beside the means."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine
from monai.handlers import MetricsSaver
from monai.handlers.utils import write_metrics_reports
from monai.utils import string_list_all_gather

from mmar_runtime.components.measuring import Measurements
from mmar_runtime.files import write_text_atomically
from mmar_runtime.metrics import Metrics

METRICS_FILE = "metrics.csv"


class NamedMetricsSaver(MetricsSaver):
    """``MetricsSaver`` as MONAI has it, arguments and files, but for the columns.

    ``metrics.csv`` has a line for each metric, or for each number of a vector: name, value, unit,
    and how many cases have a value, have none, and miss a labelled class. A column of
    ``<metric>_raw.csv`` and a row of ``<metric>_summary.csv`` have the name of the label, where the
    data list has such a name.
    """

    def __call__(self, engine: Engine) -> None:
        """Write the metrics of the engine's last epoch."""
        state: Any = engine.state  # MONAI adds the details, and the runtime the measurements
        measurements: Measurements = state.measurements
        metrics = measurements.read(self._wanted(self.metrics, state.metrics))
        images = self._filenames
        if idist.get_world_size() > 1:
            images = string_list_all_gather(strings=images)
        if idist.get_rank() != self.save_rank:
            return
        if metrics:
            write_text_atomically(Path(self.save_dir) / METRICS_FILE, _table(metrics, self.deli))
        details = getattr(state, "metric_details", {})
        for label in self._wanted(self.metric_details, details):
            with warnings.catch_warnings():
                # The mean of a case or a class without a value is nan, as it should be.
                warnings.simplefilter("ignore", RuntimeWarning)
                write_metrics_reports(
                    save_dir=self.save_dir,
                    images=images or None,
                    metrics=None,
                    metric_details={label: details[label]},
                    summary_ops=self.summary_ops,
                    deli=self.deli,
                    output_type=self.output_type,
                    class_labels=measurements.class_names(label),
                )

    @staticmethod
    def _wanted(asked: tuple[str, ...] | None, known: Any) -> Iterator[str]:
        names = asked or ()
        return (label for label in known if label in names or "*" in names)


def _table(metrics: Metrics, delimiter: str) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    for label, metric in metrics.items():
        value = "nan" if metric.value is None else repr(metric.value)
        missed = metric.missed if metric.classes else ""
        writer.writerow([label, value, metric.unit, metric.counted, metric.undefined, missed])
    return stream.getvalue()
