"""Variables: values that would like to be more than values."""

from __future__ import annotations

from typing import Any

from tests.security.case import ENVIRONMENT, TRAIN, Case

RULES = (
    "variable", "unknown-variable", "expression", "reference", "path", "type", "environment",
    "json", "limit", "component", "code", "unknown-component", "site-value", "disabled",
    "component-kind", "unknown-key", "unknown-argument", "section", "job-file",
)  # fmt: skip

SLOT = "train/handlers/4/args/tag_name"

VALUES: dict[str, tuple[str, str, Any]] = {
    # id: what it tries, the text of the slot, the value of {V}
    "becomes-expression": ("an expression by its value", "{V}", "#open('MARKER', 'w')"),
    "becomes-lambda": ("a lambda by its value", "{V}", "lambda x: open('MARKER', 'w')"),
    "becomes-reference": ("a reference by its value", "{V}", "@model"),
    "becomes-variable": ("an expression in two parts", "{V}open('MARKER','w')", "#"),
    "becomes-lambda-parts": ("a lambda in two parts", "lamb{V} x: 0", "da"),
    "becomes-reference-parts": ("a reference in two parts", "{V}model", "@"),
    "blank-before": ("a blank before the sign", "{V}", " #1"),
    "newline-before": ("a line break before the sign", "{V}", "\n@model"),
    "inside-fstring": ("a variable inside an f-string", "lambda x: f'{V}'", 1),
    "inside-lambda": ("a variable inside a lambda", "lambda x: x['{V}'].y", "a"),
    "dollar": ("the environment in NVFlare's spelling", "{$MMAR_CANARY}", 1),
    "attribute": ("a walk in the spelling of format", "{V.__class__.__mro__}", "a"),
    "index": ("an index in the spelling of format", "{V[0]}", "abc"),
    "conversion": ("a conversion in the spelling of format", "{V!r}", "a"),
    "width": ("a width bomb in the spelling of format", "{V:>9999999999}", "a"),
    "nested": ("a variable inside a variable's name", "{{V}}{", "V"),
    "nested-name": ("a name made of a variable", "{A{V}}", "B"),
    "positional": ("a position in the spelling of format", "{0}", "a"),
    "empty-name": ("no name", "{}", "a"),
    "blank-name": ("a name with blanks", "{ V }", "a"),
    "unicode-name": ("a name that Python makes plain", "{\uff36}", "a"),
    "dunder-name": ("a dunder as a name", "{__builtins__}", "a"),
    "unknown": ("a variable of the process", "{MMAR_CANARY_VALUE}", "a"),
    "bomb": ("a text of a thousand texts", "{V}" * 100, "a" * 4000),
    "brackets": ("many single braces", "{" * 1001, "a"),
    "null": ("null in a text", "a{N}b", "a"),
}

CHANGES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "name-by-variable": (
        "a class by a variable",
        {TRAIN: {"cls": "subprocess.Popen", "train/loss": {"path": "{cls}", "args": {}}}},
    ),
    "name-by-parts": (
        "a class by parts",
        {TRAIN: {"m": "os", "train/loss": {"path": "{m}.system", "args": {}}}},
    ),
    "disabled-by-text": (
        "a switch by a word",
        {TRAIN: {"off": "yes", "train/loss/disabled": "{off}"}},
    ),
    "environment-object": ("an object as a value", {ENVIRONMENT: {"X": {"a": 1}}}),
    "environment-list": ("an array as a value", {ENVIRONMENT: {"X": ["#1"]}}),
    "environment-expression": (
        "an expression from the environment's document",
        {ENVIRONMENT: {"INPUT_CHANNELS": "#open('MARKER', 'w')"}},
    ),
    "environment-reference": (
        "a reference from the environment's document",
        {ENVIRONMENT: {"OUTPUT_CHANNELS": "@conf"}},
    ),
    "ckpt-dir-absolute": ("a folder of the site", {ENVIRONMENT: {"MMAR_CKPT_DIR": "/etc"}}),
    "ckpt-dir-up": ("a folder above", {ENVIRONMENT: {"MMAR_CKPT_DIR": "../../startup"}}),
    "ckpt-dir-home": ("a home", {ENVIRONMENT: {"MMAR_CKPT_DIR": "~/x/../../.."}}),
    "ckpt-dir-nul": ("a NUL", {ENVIRONMENT: {"MMAR_CKPT_DIR": "models\0/etc"}}),
    "own-mmar-variable": (
        "a variable of its own that looks like a folder",
        {
            ENVIRONMENT: {"MMAR_EVIL": "../../local"},
            TRAIN: {"train/handlers/3/args/save_dir": "{MMAR_EVIL}"},
        },
    ),
    "workflow-mmar-variable": (
        "the same in the workflow",
        {TRAIN: {"MMAR_OWN": "/etc", "train/handlers/3/args/save_dir": "{MMAR_OWN}"}},
    ),
    "label-by-site-value": (
        "the site's folder as a name that the server sees",
        {TRAIN: {"validate/key_metric/log_label": "{DATA_ROOT}"}},
    ),
    "label-holds-site-value": (
        "the same inside a text",
        {TRAIN: {"validate/key_metric/log_label": "m_{DATASET_JSON}"}},
    ),
    "amp-text": ("a word for a switch", {TRAIN: {"amp": "no"}}),
    "seed-text": ("a text as a seed", {TRAIN: {"determinism": {"random_seed": "#1"}}}),
    "seed-huge": ("a seed of 90 digits", {TRAIN: {"determinism/random_seed": int("9" * 90)}}),
    "channels-text": (
        "a text where a component stands",
        {TRAIN: {"V": "os.system", "train/loss": "{V}"}},
    ),
}

HOSTILE: tuple[Case, ...] = (
    *(
        Case(
            id=id_,
            family="substitution",
            tries=tries,
            rules=RULES,
            edits={TRAIN: {"V": value, "B": "b", SLOT: text}, ENVIRONMENT: {"N": None}},
        )
        for id_, (tries, text, value) in VALUES.items()
    ),
    *(
        Case(id=id_, family="substitution", tries=tries, rules=RULES, edits=edits)
        for id_, (tries, edits) in CHANGES.items()
    ),
    Case(
        id="set-expression",
        family="substitution",
        tries="an expression by --set",
        rules=RULES,
        overrides=["learning_rate=#open('MARKER', 'w')"],
    ),
)
