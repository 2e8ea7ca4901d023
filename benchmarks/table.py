"""Writes the tables of docs/performance.md from what stands in benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import RESULTS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
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


def tables() -> Iterator[str]:
    """A section for each benchmark that has left figures."""
    for name, title in TITLES.items():
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        machine = document["machine"]
        yield f"## {title}"
        yield ""
        cores, processor = machine["cores"], machine["processor"]
        yield f"On {cores} processors ({processor}), at a load of {machine['load']:.1f}."
        yield ""
        yield "| what | figure | arm | median (range) | ratio | wanted, at most |"
        yield "|---|---|---|---|---|---|"
        for one in document["rows"]:
            yield line(one)
        yield ""


def line(one: dict[str, Any]) -> str:
    """One row."""
    spread = f"{one['median']:.3f} ({one['least']:.3f} to {one['most']:.3f})"
    ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
    wanted = "" if one["bar"] is None else f"ratio {one['bar']:g}"
    if one.get("limit") is not None:
        wanted = "; ".join(part for part in (wanted, f"{one['limit']:g}") if part)
    cells = (one["benchmark"], one["figure"], one["arm"], spread, ratio, wanted)
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    body = "\n".join(tables()) or "Nothing is measured yet.\n"
    PAGE.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
