"""What a contribution must be before it may touch the global model; one that is not is rejected."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch

from mmar_runtime.weights import Weights, mismatches

MAX_STEPS = 10**9


def faults(difference: Weights, steps: object, global_weights: Weights) -> tuple[str, ...]:
    """Why a contribution must not be aggregated; empty if it may be.

    Checked are: every tensor of the model and no other, each with the model's shape and dtype,
    dense, every value finite, and a positive whole number of steps.

    Args:
        difference: local minus received weights.
        steps: optimizer steps done, as the site says.
        global_weights: the model that the site received.
    """
    found = list(mismatches(global_weights, difference))
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 < steps <= MAX_STEPS:
        found.append(f"steps: has to be a whole number from 1 to {MAX_STEPS}, found {steps!r}")
    found += [
        f"{name}: values that are not finite"
        for name, tensor in difference.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    return tuple(found)


def metric_faults(
    reported: Mapping[str, float], key_metric: str, expected: Collection[str]
) -> tuple[str, ...]:
    """Why a site's metrics cannot be averaged with the others'; empty if they can be.

    Args:
        reported: metric label -> value, as the site says.
        key_metric: must be among them; models are compared by it.
        expected: the labels that the other sites report; empty where nobody has reported yet.
    """
    if key_metric not in reported:
        return (f"metrics: the key metric {key_metric!r} is missing, reported {sorted(reported)}",)
    if expected and set(reported) != set(expected):
        return (f"metrics: reported {sorted(reported)}, other sites report {sorted(expected)}",)
    return tuple(
        f"metrics: {label} is not a finite number, found {value!r}"
        for label, value in reported.items()
        if not is_finite_metric(value)
    )


def is_finite_metric(value: object) -> bool:
    """Whether a metric is a number that can be compared and averaged."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
