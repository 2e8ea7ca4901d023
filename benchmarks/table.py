"""Writes the tables of the page on performance from the documents in benchmarks/results.

A table has a row for each case and figure, and a column for each arm. A cell has the median and,
after the first arm, the ratio to the first arm. A bar is next to the number that it bounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import RESULTS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "look-up" / "performance.md"
BEGIN, END = "<!-- begin: made by `make bench` -->", "<!-- end -->"
TITLES = {
    "round_overhead": "Overhead of a round",
    "start_up": "Start",
    "many_sites": "Many sites",
    "large_state": "Rounds without training",
    "round_gap": "Between two rounds",
    "large_state_nvflare": "Rounds of large models by NVFlare",
    "aggregation": "The mean itself",
}
MINOR = (
    "processes",
    "seconds of a site and round",
    "seconds of all rounds / rounds",
    "all memory / model size",
    "the same, nine of ten below",
)
"""Figures that a table shows only where they have a bar."""

PAIRED = ", beside a loop that writes"
"""Cases that only pair an arm with another; the case itself has their medians."""

Rows = list[dict[str, Any]]


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Title and document of each benchmark that has results."""
    for name, title in TITLES.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            yield title, json.loads(path.read_text(encoding="utf-8"))


def section(title: str, document: dict[str, Any]) -> Iterator[str]:
    """The tables of a benchmark: a new table wherever the arms change."""
    machine = document["machine"]
    yield f"## {title}"
    yield ""
    cases: dict[str, Rows] = {}
    for row in document["rows"]:
        if PAIRED not in row["benchmark"]:
            cases.setdefault(row["benchmark"], []).append(row)
    corner = f"{machine['cores']} processors, load {machine['load']:.1f}"
    for arms, group in groupby(cases.values(), key=arms_of):
        yield line(corner, *arms)
        yield "|---" * (len(arms) + 1) + "|"
        for rows in group:
            yield from case(rows, arms)
        yield ""


def arms_of(rows: Rows) -> tuple[str, ...]:
    """The arms of a case, in their order."""
    return tuple(dict.fromkeys(row["arm"] for row in rows))


def case(rows: Rows, arms: tuple[str, ...]) -> Iterator[str]:
    """A line for each figure of a case."""
    for figure in dict.fromkeys(row["figure"] for row in rows):
        measured = {row["arm"]: row for row in rows if row["figure"] == figure}
        if figure in MINOR and not any(map(has_bar, measured.values())):
            continue
        first = next(iter(measured))
        cells = (cell(measured[arm], arm == first) if arm in measured else "" for arm in arms)
        yield line(f"{rows[0]['benchmark']}: {figure}", *cells)


def has_bar(row: dict[str, Any]) -> bool:
    """Whether a bar bounds the figure of an arm."""
    return row["bar"] is not None or row.get("limit") is not None


def cell(row: dict[str, Any], is_first: bool) -> str:
    """Median, ratio and bars of an arm."""
    median = bounded(number(row["median"]), row["median"], row.get("limit"))
    if is_first or row["ratio"] is None:
        return median
    ratio = bounded(f"{row['ratio']:.2f}x", row["ratio"], row["bar"])
    return f"{median} ({ratio})"


def bounded(text: str, value: float, bar: float | None) -> str:
    """A number with its bar, if it has one; bold where the number misses the bar."""
    if bar is None:
        return text
    return f"{text} ≤{bar:g}" if value <= bar else f"**{text} >{bar:g}**"


def number(value: float) -> str:
    """Three digits, and all digits before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def line(*cells: str) -> str:
    """A line of a table."""
    return "| " + " | ".join(cells) + " |"


def tables(benchmarks: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """All sections, as Markdown."""
    lines = [text for title, document in benchmarks for text in section(title, document)]
    return "\n".join(lines) or "Nothing is measured yet.\n"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(documents())}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
