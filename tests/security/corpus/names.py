"""Names that a terminal, a log, a spreadsheet or a page would take for something else.

And numbers of steps that no round has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.security.case import Case, UpdateCase, train
from tests.security.corpus.update import DICE, score, told

META, CLIENT = "meta.json", "app/config/config_fed_client.json"
RULES = ("log-label", "path", "variable", "json", "site-value", "type", "expression", "reference")
LABEL = "validate/key_metric/log_label"

ODD: dict[str, tuple[str, str]] = {
    "newline": ("a line of its own in a log", "val_dice\nINFO all is well"),
    "return": ("a line over the one before", "val_dice\rok"),
    "escape": ("a command of a terminal", "\x1b[2Jval_dice"),
    "c1": ("the same in one byte", "\x9b2Jval_dice"),
    "bell": ("a bell", "val\x07dice"),
    "backspace": ("signs that go away again", "bad\b\b\bgood"),
    "formula": ("a formula", "=1+1"),
    "formula-plus": ("a formula", "+cmd|' /C calc'!A0"),
    "formula-minus": ("a formula", "-2+3"),
    "formula-at": ("a formula", "@SUM(A1)"),
    "formula-tab": ("a formula behind a tab", "\t=1+1"),
    "formula-blank": ("a formula behind a blank", " =1+1"),
    "formula-wide": ("a formula in wide signs", "\uff1d1+1"),
    "markup": ("markup of a terminal", "[red]val_dice[/red]"),
    "markup-link": ("a link of a terminal", "[link=https://evil.example]dice[/link]"),
    "html": ("markup of a page", "<img src=x onerror=alert(1)>"),
    "quote": ("the end of an attribute", '"><script>'),
    "math": ("a formula of a plot", "$\\frac{1}{0}$"),
    "bidi": ("letters that run the other way", "val\u202ecid_dice"),
    "isolate": ("letters that run by themselves", "val\u2066dice"),
    "zero-width": ("a sign that nobody sees", "val\u200b_dice"),
    "mark": ("a mark of the order of bytes", "\ufeffval_dice"),
    "twin": ("a letter of another script", "v\u0430l_dice"),
    "line-separator": ("a line break of another kind", "val\u2028dice"),
    "comma": ("another column", "val_dice,0.99"),
    "path": ("a path", "../../etc/cron.d/x"),
    "semicolon": ("another column", "val;dice"),
    "blank": ("nothing that one sees", "   "),
    "long": ("a name of a thousand letters", "d" * 1000),
}  # fmt: skip


def _label(value: Any) -> dict[str, Any]:
    return {LABEL: value}


HOSTILE: tuple[Case | UpdateCase, ...] = (
    *(
        train(f"label-{id_}", "name", tries, RULES, _label(name))
        for id_, (tries, name) in ODD.items()
    ),
    *(
        Case(id=f"job-{id_}", family="name", tries=tries, rules=("job-file",), base="job",
             edits={META: {"name": name}})
        for id_, (tries, name) in ODD.items()
    ),
    *(
        Case(id=f"site-{id_}", family="name", tries=tries, rules=("job-file",), base="job",
             edits={META: {"deploy_map": {"app": ["server", name]}}})
        for id_, (tries, name) in ODD.items()
    ),
    *(
        Case(id=f"component-{id_}", family="name", tries=tries, rules=("job-file", "course"),
             base="job", edits={CLIENT: {"components/0/id": name}})
        for id_, (tries, name) in ODD.items()
    ),
    *(
        UpdateCase(id=f"metric-{id_}", family="name", tries=tries,
                   change=told("report/local_metrics", {
                       "val_mean_dice": score(0.5), name: score(0.5)}))
        for id_, (tries, name) in ODD.items()
    ),
    *(
        UpdateCase(id=f"class-{id_}", family="name", tries=tries,
                   change=told(f"{DICE}/classes", {name: score(0.5)["classes"]["spleen"]}))
        for id_, (tries, name) in ODD.items()
    ),
    *(
        UpdateCase(id=f"process-{id_}", family="name", tries=tries,
                   change=told("report/process", name))
        for id_, (tries, name) in ODD.items()
    ),
    *(
        UpdateCase(id=f"filter-{id_}", family="name", tries=tries,
                   change=told("filter_history", [name]))
        for id_, (tries, name) in ODD.items()
    ),
)  # fmt: skip

STEPS: dict[str, tuple[str, Any]] = {
    "billion": ("a billion steps", 10**9),
    "more": ("more than there can be", 10**18),
    "epoch": ("more steps than an epoch has", 2_000_001),
    "flag": ("a flag as a number", True),
    "float": ("steps that are not whole", 10.5),
    "whole-float": ("a number of the other kind", 10.0),
    "none": ("no steps", 0),
    "negative": ("steps below none", -10),
    "text": ("a text", "10"),
    "list": ("a list", [10]),
    "null": ("nothing", None),
    "nan": ("no number", float("nan")),
    "infinite": ("no end", float("inf")),
    "object": ("an object", {"steps": 10}),
}  # fmt: skip


def _many_epochs(update: dict[str, Any], about: dict[str, Any], marker: Path) -> None:
    """Epochs that are reported so that more steps seem plausible."""
    about["report"]["epochs"] = [{"epoch": n + 1, "loss": None, "metrics": {}} for n in range(120)]
    about["steps"] = 10**8 + 1


STEP_CASES: tuple[UpdateCase, ...] = (
    *(
        UpdateCase(id=f"steps-{id_}", family="steps", tries=tries, change=told("steps", value))
        for id_, (tries, value) in STEPS.items()
    ),
    UpdateCase(
        id="steps-epochs", family="steps", tries="steps of epochs that no round has",
        change=_many_epochs,
    ),
)  # fmt: skip

PLAIN = {
    "clara": "Val_Mean_Dice",
    "dotted": "val.mean.dice",
    "dashed": "val-mean-dice",
    "blanks": "mean dice of validation",
    "digits": "hd95",
    "digit-first": "95th percentile",
    "underscore": "_dice",
    "one": "d",
    "capitals": "AUC",
    "hundred": "d" * 100,
}
BENIGN: tuple[Case | UpdateCase, ...] = (
    *(
        train(f"name-label-{id_}", "benign", "a plain name of a metric", (), _label(name))
        for id_, name in PLAIN.items()
    ),
    *(
        Case(id=f"name-job-{id_}", family="benign", tries="a plain name of a job", rules=(),
             base="job", edits={META: {"name": name}})
        for id_, name in PLAIN.items()
        if id_ != "underscore"
    ),
    UpdateCase(id="name-steps-most", family="benign", tries="as many steps as an epoch may have",
               change=told("steps", 10_000)),
)  # fmt: skip
