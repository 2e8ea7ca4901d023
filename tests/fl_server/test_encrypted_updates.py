"""The guard on an update that came encrypted: what can be judged of it is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_server.update_guard import Expected, UpdateLimits, check_update
from mmar_runtime.config.location import Location
from mmar_runtime.exchange.encryption import (
    CIPHERTEXTS,
    LAYOUT,
    LENGTHS,
    WEIGHT,
    EncryptedPart,
    layout_of,
)
from tests.fl_server.test_update_guard import CONTRIBUTION, MODEL, SUBMISSION, metadata, submission

LAYOUT_OF_JOB = layout_of(MODEL, ["conv.*"], Location("x"))
EXPECTED = replace(
    CONTRIBUTION,
    model={"norm.batches": MODEL["norm.batches"]},
    encrypted=LAYOUT_OF_JOB,
    factor=0.5,
)
LIMITS = UpdateLimits(metric_ranges={"dice": (0.0, 1.0)})


def update(**changes: Any) -> dict[str, Any]:
    part = {"layout": LAYOUT_OF_JOB, "weight": 12 * 0.5, "ciphertexts": (b"abc",), **changes}
    return {**EncryptedPart(**part).arrays, "norm.batches": np.array(4)}


def faults(update: Any, expected: Expected = EXPECTED, **limits: Any) -> list[tuple[str, str]]:
    meta = metadata() if expected.kind == "WEIGHT_DIFF" else submission()
    found = check_update(update, meta, expected, replace(LIMITS, **limits))
    return [(one.rule, str(one)) for one in found]


def test_an_encrypted_contribution_has_no_fault() -> None:
    assert faults(update()) == []


def test_a_model_of_a_site_is_multiplied_by_nothing() -> None:
    expected = replace(SUBMISSION, model=EXPECTED.model, encrypted=LAYOUT_OF_JOB)

    assert faults(update(weight=1.0), expected) == []
    assert [rule for rule, _ in faults(update(weight=2.0), expected)] == ["encryption"]


def _in_plain(arrays: dict[str, Any]) -> None:
    arrays["conv.weight"] = np.ones((2, 3), np.float32)


def _of_other_tensors(arrays: dict[str, Any]) -> None:
    arrays[LAYOUT] = np.frombuffer(b'{"other":["float32",[6]]}', np.uint8)


def _of_more_weight(arrays: dict[str, Any]) -> None:
    arrays[WEIGHT] = arrays[WEIGHT] * 1000


def _with_more_ciphertexts(arrays: dict[str, Any]) -> None:
    arrays[LENGTHS] = np.array([1, 2])


def _with_wrong_sizes(arrays: dict[str, Any]) -> None:
    arrays[LENGTHS] = np.array([2])


def _of_objects(arrays: dict[str, Any]) -> None:
    arrays[CIPHERTEXTS] = [1, 2, 3]


def _without(arrays: dict[str, Any]) -> None:
    del arrays[CIPHERTEXTS]


def _with_a_plain_fault(arrays: dict[str, Any]) -> None:
    arrays["norm.batches"] = np.array(-8)


@pytest.mark.parametrize(
    ("spoil", "rule", "told"),
    [
        (_in_plain, "encryption", "came in plain, and has to be encrypted"),
        (_of_other_tensors, "encryption", "names other tensors than those that the job encrypts"),
        (_of_more_weight, "encryption", "is 6000; steps by the site's aggregation weight are 6"),
        (_with_more_ciphertexts, "encryption", "has 2 ciphertexts; the tensors take 1"),
        (_with_wrong_sizes, "encryption", "has 3 bytes"),
        (_of_objects, "encryption", "is not a row of uint8"),
        (_without, "encryption", "is not a row of uint8"),
        (_with_a_plain_fault, "range", "norm.batches"),
    ],
)
def test_what_is_wrong_with_it_is_told(
    spoil: Callable[[dict[str, Any]], None], rule: str, told: str
) -> None:
    arrays = update()
    spoil(arrays)

    assert any(rule == found and told in text for found, text in faults(arrays))


def test_ciphertexts_count_for_the_bound_of_bytes() -> None:
    [(rule, told)] = faults(update(), max_bytes=20)

    assert rule == "bytes"
    assert "encrypted bytes; 20 is the most" in told


def test_a_job_that_encrypts_nothing_takes_no_ciphertexts() -> None:
    rules = {rule for rule, _ in faults(update(), replace(CONTRIBUTION, model=EXPECTED.model))}

    assert rules == {"names"}


@pytest.mark.parametrize("arrays", [None, [], {1: 2}, {}, {LAYOUT: object()}])
def test_anything_else_is_a_fault_and_no_error(arrays: Any) -> None:
    assert faults(arrays)
    assert "unreadable" not in {rule for rule, _ in faults(arrays)}
