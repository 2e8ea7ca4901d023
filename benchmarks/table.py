"""Writes the tables of docs/look-up/performance.md from what stands in benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Iterator
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


def documents() -> dict[str, dict[str, Any]]:
    """Title -> what a benchmark has left."""
    paths = {title: RESULTS / f"{name}.json" for name, title in TITLES.items()}
    return {
        title: json.loads(path.read_text(encoding="utf-8"))
        for title, path in paths.items()
        if path.is_file()
    }


def bars(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A section of the figures for which there is a bar."""
    rows = [one for document in found.values() for one in document["rows"]]
    yield "## The bars"
    yield ""
    yield "| what | figure | arm | measured | bar | met |"
    yield "|---|---|---|---|---|---|"
    for one in rows:
        wanted = (("ratio ", one["ratio"], one["bar"]), ("", one["median"], one.get("limit")))
        for kind, measured, bar in wanted:
            if bar is not None:
                cells = (one["benchmark"], one["figure"], one["arm"])
                told = (f"{kind}{measured:.3g}", f"{bar:g}", "yes" if measured <= bar else "no")
                yield "| " + " | ".join([*cells, *told]) + " |"
    yield ""


def tables() -> Iterator[str]:
    """A section of the bars, and one for each benchmark that has left figures."""
    found = documents()
    if found:
        yield from bars(found)
    for title, document in found.items():
        machine = document["machine"]
        yield f"## {title}"
        yield ""
        cores, processor = machine["cores"], machine["processor"]
        yield f"On {cores} processors ({processor}), at a load of {machine['load']:.1f}."
        yield ""
        yield "| what | figure | arm | median (range) | ratio |"
        yield "|---|---|---|---|---|"
        for one in document["rows"]:
            yield line(one)
        yield ""


def line(one: dict[str, Any]) -> str:
    """One row."""
    spread = f"{one['median']:.3f} ({one['least']:.3f} to {one['most']:.3f})"
    ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
    cells = (one["benchmark"], one["figure"], one["arm"], spread, ratio)
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    body = "\n".join(tables()) or "Nothing is measured yet.\n"
    PAGE.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
