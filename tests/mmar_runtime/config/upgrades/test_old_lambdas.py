"""4.0's lambdas that call MONAI's transforms: the known shapes, and all others left alone."""

from __future__ import annotations

from typing import Any

import pytest

from mmar_runtime.config.upgrades.old_lambdas import Value, computed_values

MONAI = "__import__('monai').transforms"
ARGMAX = ("AsDiscrete", (("argmax", True),))


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ("x['pred'].detach().cpu()", [Value("pred")]),
        ("(x['pred'].detach(), x['label'])", [Value("pred"), Value("label")]),
        (f"{MONAI}.AsDiscrete(argmax=True)(x['pred'][0][None])", [Value("pred", (ARGMAX,))]),
        ("monai.transforms.AsDiscrete(argmax=True)(x['pred'])", [Value("pred", (ARGMAX,))]),
        (
            "__import__('monai.transforms').transforms.AsDiscrete(argmax=True)(x['pred'])",
            [],  # a second import in another spelling is not guessed at
        ),
        (
            f"{MONAI}.Compose([{MONAI}.Activations(softmax=True), {MONAI}.AsDiscrete(argmax=True)])"
            "(x['pred'][0][None].detach().cpu())",
            [Value("pred", (("Activations", (("softmax", True),)), ARGMAX))],
        ),
        (
            f"{MONAI}.AsDiscrete(argmax=True)({MONAI}.Activations(softmax=True)(x['pred']))",
            [Value("pred", (("Activations", (("softmax", True),)), ARGMAX))],
        ),
        ("x['pred'][0].unsqueeze(0)", [Value("pred")]),
        ("x['pred'].argmax(dim=1, keepdim=True)", [Value("pred", (ARGMAX,))]),
        ("x['pred'].round()", [Value("pred", (("AsDiscrete", (("rounding", "torchrounding"),)),))]),
        (
            f"({MONAI}.KeepLargestConnectedComponent(applied_labels=[1, 2])(x['p']), x['label'])",
            [
                Value("p", (("KeepLargestConnectedComponent", (("applied_labels", (1, 2)),)),)),
                Value("label"),
            ],
        ),
    ],
)
def test_the_transforms_of_a_lambda_are_read_in_their_order(body: str, values: list[Value]) -> None:
    assert computed_values(f"lambda x: {body}") == tuple(values)


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "from_engine(['pred'])",
        "lambda x",
        "lambda x, y: x['pred']",
        "lambda x: x",
        "lambda x: x['pred'][0]",  # an item without its batch has other axes
        "lambda x: x['pred'].numpy()",
        "lambda x: x['pred'].argmax(dim=2, keepdim=True)",
        "lambda x: x['pred'].argmax(dim=1)",  # without its channel
        r"lambda x: (x[r'\x5f'], x['label'])",
        "lambda x: (x['__class__'], x['label'])",
        "lambda x: (x['_' '_class_' '_'], x['label'])",
        "lambda x: (x['préd'], x['label'])",
        "lambda x: __import__('os').system('id')",
        "lambda x: __import__('monai').data.load('f')",
        "lambda x: __import__('os').transforms.AsDiscrete(argmax=True)(x['pred'])",
        f"lambda x: {MONAI}.Lambda(func=print)(x['pred'])",
        f"lambda x: {MONAI}.AsDiscrete(argmax=__import__('os'))(x['pred'])",
        f"lambda x: {MONAI}.AsDiscrete(**x)(x['pred'])",
        f"lambda x: {MONAI}.AsDiscrete(True)(x['pred'])",
        f"lambda x: {MONAI}.LoadImage()(x['pred'])",
        f"lambda x: {MONAI}.AsDiscrete(argmax=True)(x['pred'])" + " " * 1000,
        "lambda x: " + "(" * 300 + "x" + ")" * 300,
        "lambda x: x['pred']" + ".cpu()" * 160,
    ],
)
def test_any_other_text_is_left_to_the_expression_language(text: Any) -> None:
    assert computed_values(text) == (
        (Value("pred"),) if isinstance(text, str) and text.endswith(".cpu()") else ()
    )
