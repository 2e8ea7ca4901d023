"""Functions in arguments: what a metric, a log, a number and a mask are made of."""

from __future__ import annotations

import pytest

from mmar_runtime.config.expressions import parse_expression
from mmar_runtime.policy.lambda_forms import (
    EXAMPLES,
    LAMBDA_FORMS,
    LambdaForm,
    lambda_advice,
    lambda_fault,
)


def fault(text: str, form: LambdaForm) -> str:
    return lambda_fault(parse_expression(text), form)


@pytest.mark.parametrize(
    "text",
    [
        "#monai.handlers.from_engine(['pred', 'label'])",
        "#from_engine(['loss'], first=True)",
        "#from_engine('loss', True)",
        "#from_engine(['pred'])",
        "#from_engine(['pred', 'image'])",
        "lambda x: (x['pred'], x['label'])",
        "lambda x: [x['pred'], x['label']]",
        "lambda x: {'y_pred': x['pred'], 'y': x['label']}",
        "lambda x: x['pred']",
        "lambda x: x",
        "lambda x: x['loss']",
        "lambda x: x[0]['loss']",
        "lambda x: x[-1]['g_loss']",
        "lambda x: x[0]['loss'] * 100",
        "lambda x: (x[0]['loss_a'] + x[0]['loss_b']) / 2",
        "lambda x: 1 - x['dice']",
        "lambda x: (x['pred'] > 0.5, x['label'])",
        "lambda x: (x['pred'], x['label'] == 1)",
    ],
)
def test_a_metric_is_computed_from_whole_entries(text: str) -> None:
    assert fault(text, "metric_output") == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("lambda x: x[0]['image'][0][10][11][12]", "takes a part out of 'image'"),
        ("lambda x: x['pred'][0][0]", "takes a part out of 'pred'"),
        ("lambda x: x['label'] == None", "compares other than one entry with one number"),
        ("lambda x: x['pred'][0]", "takes a part out of 'pred'"),
        ("lambda x: (x['pred'], x['image'][0][1][2])", "takes a part out of 'image'"),
        ("lambda x: x[0][0]['loss']", "takes a part out of 'loss'"),
        ("lambda x: x[0]", "takes a part out of the output"),
        ("lambda x: x['image_meta_dict']['filename']", "takes a part out of 'image_meta_dict'"),
        ("lambda x: x[0]['pred']", "of one item alone"),
        ("lambda x: (x[0]['pred'], x[0]['label'])", "of one item alone"),
        ("#from_engine(['pred', 'label'], first=True)", "of one item alone"),
        ("#from_engine(['loss', 'image'], first=True)", "of one item alone"),
        ("#from_engine(['image'])", "takes 'image' alone"),
        ("#from_engine('image')", "takes 'image' alone"),
        ("lambda x: x['image']", "takes 'image' alone"),
        ("lambda x: (x['image'], x['image'] * 0.001)", "takes 'image' alone"),
        ("lambda x: x['image'] - 5", "takes 'image' alone"),
    ],
)
def test_a_metric_is_not_computed_from_parts(text: str, why: str) -> None:
    assert why in fault(text, "metric_output")


@pytest.mark.parametrize(
    "text",
    [
        "lambda e: e.state.batch['image']",
        "lambda e: e.state.output[0]['loss']",
        "lambda x: (x['pred'] > 0.5) * x['image']",
        "lambda x: x['image'] * (x['image'] == 7)",
        "lambda x: (x['image'] > 0.99, x['label'])",
        "lambda x: (x['pred'] > x['label'], x['label'])",
        "lambda x: x['pred'] if x['loss'] > 1 else x['label']",
        "lambda x: x['loss'] and x['pred']",
        "lambda x: not x['loss']",
        "lambda x: x['loss'] % 0.001",
        "lambda x: x['loss'] // 0.001",
        "lambda x: x['loss'] * 1000000",
        "lambda x: x['loss'] * 1000 * 1000",
        "lambda x: (x['loss'] * 1000 + 1) / 0.001",
        "lambda x: x['loss'] / 0.0000001",
        "lambda x: x['loss'] * 0",
        "lambda x: 1 / x['loss']",
        "lambda x: x['pred'] * x['label']",
        "lambda x: 5",
        "lambda x: None",
        "lambda x: (x['pred'], 0)",
        "lambda x: (x['pred'], 1 - 1)",
        "lambda x: f'{x}'",
        "lambda x: print(x)",
        "lambda x: from_engine(['pred'])",
        "lambda x: [[x['pred']]]",
        "lambda x: @model",
        "lambda x: torch.float32",
        "#5",
        "#from_engine(['pred']) if 1 else 2",
        "#[from_engine(['pred'])]",
        "#@model.parameters()",
    ],
)
def test_a_metric_is_not_computed_by_choices_and_not_to_more_digits(text: str) -> None:
    assert fault(text, "metric_output")


@pytest.mark.parametrize(
    "text",
    [
        "lambda x: None",
        "lambda x: x",
        "lambda x: x['loss']",
        "lambda x: x[0]['loss']",
        "lambda x: x[0]",
        "lambda x: x['pred'][0]",
        "lambda x: x['image_meta_dict']",
        "lambda x: x['image_meta_dict']['filename_or_obj']",
        "lambda x: {'loss': x[0]['loss'], 'dice': x[0]['dice'] * 100}",
        "lambda x: (x['image'], x['label'])",
        "lambda x: x['loss'] if x['loss'] < 10 else 10",
        "lambda x: f\"loss {x[0]['loss']:.4f}\"",
        "lambda x: print('loss', x[0]['loss'])",
        "lambda engine: print(f'{engine.state.epoch}/{engine.state.max_epochs}')",
        "lambda engine: engine.state.metrics['val_mean_dice']",
        "#from_engine(['image', 'label'])",
        "#from_engine(['image_meta_dict'])",
        "#from_engine(['pred'], first=True)",
    ],
)
def test_a_log_takes_entries_and_what_is_computed_of_them(text: str) -> None:
    assert fault(text, "log_output") == ""


@pytest.mark.parametrize(
    "text",
    [
        "lambda x: x[0]['image'][0]",
        "lambda x: x['image'][0][10][11]",
        "lambda x: print(x['image'][0][10])",
        "lambda x: f\"{x['image'][0][10]}\"",
        "lambda x: {'a': [x['image'][0][10]]}",
        "lambda x: x['loss'] * x['image'][0][10]",
        "lambda x: 1 if x['image'][0][10] > 3 else 0",
        "lambda engine: engine.state.batch['image'][0][10]",
        "lambda engine: engine.state.output[0]['image'][3]",
        "lambda x: @model",
        "lambda x: @model.parameters()",
        "lambda x: from_engine(['loss'])",
        "#[1, 2]",
        "#'text'",
    ],
)
def test_a_log_takes_no_part_of_a_tensor(text: str) -> None:
    assert fault(text, "log_output")


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("number", "lambda engine: engine.state.metrics['dice']", "lambda x: 'text'"),
        ("number", "lambda engine: engine.state.output[0]['loss']", "lambda x: x['image'][0][1]"),
        ("number", "lambda epoch: epoch + 100", "lambda x: print(x)"),
        ("number", "lambda engine: 0 - engine.state.metrics['loss']", "lambda x: f'{x}'"),
        ("number", "lambda engine: ()", "lambda x: [x]"),
        ("number", "lambda x: x if x > 3 else 3", "#from_engine(['loss'])"),
        ("mask", "lambda x: x > 0", "lambda x: x"),
        ("mask", "lambda x: x + 1000 >= 200", "lambda x: x[0][10] > 0"),
        ("mask", "lambda x: not x == 1", "lambda x: x > @model"),
        ("mask", "lambda x: (x > 0) * (x < 5)", "lambda x: (x > 0) * x"),
        ("voxels", "lambda x: (x > 0).float()", "lambda x: x[0].float()"),
        ("voxels", "lambda x: x / 255 - 1", "lambda x: x % 2"),
        ("voxels", "lambda x: (x > 0) * x", "lambda x: x * @model"),
        ("voxels", "lambda x: x.to(torch.uint8)", "lambda x: 1.0"),
        ("comparison", "lambda new, best: new < best", "lambda x: x > 0"),
        ("mask", "lambda x: x > 0", "lambda new, best: new < best"),
    ],
)
def test_numbers_and_masks(form: LambdaForm, good: str, bad: str) -> None:
    assert fault(good, form) == ""
    assert fault(bad, form)


@pytest.mark.parametrize("form", LAMBDA_FORMS)
def test_the_advice_of_a_form_is_accepted(form: LambdaForm) -> None:
    assert [fault(example, form) for example in EXAMPLES[form]] == [""] * len(EXAMPLES[form])
    assert all(example in lambda_advice(form) for example in EXAMPLES[form])
