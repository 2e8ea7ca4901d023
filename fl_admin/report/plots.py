"""The curves of a report as inline SVG, in colours that the page defines.

The pictures hold numbers only: names of sites and metrics stand in the page around them, which
escapes them. Colours are CSS variables, so that one picture serves light, dark and printed pages.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fl_server.record.values import RunRecord, SiteContribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES_COLOURS = 8
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))

# Matplotlib's name of a marker, and the same shape for the legend in a box of 10 x 10.
_MARKERS = (
    ("o", "M5 1a4 4 0 1 0 .01 0z"),
    ("s", "M1.5 1.5h7v7h-7z"),
    ("^", "M5 1l4.5 8h-9z"),
    ("D", "M5 .5L9.5 5 5 9.5.5 5z"),
    ("v", "M5 9L.5 1h9z"),
    ("P", "M3.5.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"),
    ("p", "M5 .5l4.5 3.3-1.7 5.4H2.2L.5 3.8z"),
)

# Colours that occur nowhere else; each is replaced by its CSS variable in the finished SVG.
_INK, _GRID, _PAPER = "#fd0001", "#fd0002", "#fd0003"
_VARIABLES = {_INK: "var(--ink)", _GRID: "var(--rule)", _PAPER: "var(--paper)"} | {
    f"#fe00{index:02x}": f"var(--series-{index})" for index in range(SERIES_COLOURS)
}

_SIZE_INCHES = (5.0, 3.1)
# Half a screen wide on a desktop, a whole one on a phone: 10 points stay readable on both.
# Any: from 3.11 on matplotlib spells out the literal names of all its settings, before that str.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LineStyle:
    """How the curve of one site looks; colour, marker and dashes together tell sites apart.

    Attributes:
        colour: index of the CSS variable ``--series-<index>``.
        marker: matplotlib's name of the marker.
        outline: the marker as an SVG path in a box of 10 x 10.
        dashes: lengths of strokes and gaps; empty for a solid line.
    """

    colour: int
    marker: str
    outline: str
    dashes: tuple[float, ...]


def line_style(index: int) -> LineStyle:
    """Return the style of the site at this place in the order of the sites."""
    marker, outline = _MARKERS[index % len(_MARKERS)]
    dashes = _DASHES[index // SERIES_COLOURS % len(_DASHES)]
    return LineStyle(colour=index % SERIES_COLOURS, marker=marker, outline=outline, dashes=dashes)


def import_drawing() -> None:
    """Import what draws, which takes about half a second: early, by a process that is idle."""
    import matplotlib.figure  # noqa: F401


def score_plot(record: RunRecord) -> str:
    """SVG: the key metric of the global model by round, at each site and in the mean."""
    metric = record.key_metric

    def draw(axes: Axes) -> None:
        for index, site in enumerate(record.sites):
            scored = [(s.round, s.sites[site][metric]) for s in record.scores if site in s.sites]
            _draw_site(axes, index, [(at, m.value) for at, m in scored if m.value is not None])
        means = [(scores.round, scores.mean[metric].value) for scores in record.scores]
        drawn = [(number, mean) for number, mean in means if mean is not None]
        axes.plot(*_columns(drawn), color=_INK, linewidth=3, marker="o", markersize=4, zorder=3)
        values = [at[metric].value for scores in record.scores for at in scores.sites.values()]
        if all(0 <= value <= 1 for value in values if value is not None):
            # A score such as Dice is read against its whole range; a cut axis makes small gains
            # tall.
            axes.set_ylim(0, 1.02)
        axes.set_xlabel("round of the global model (0: initial)")

    return _picture("scores", draw)


def loss_plot(record: RunRecord) -> str:
    """SVG: the training loss of each local epoch at each site.

    The last epoch of a round stands on the number of the round, the earlier ones at even steps
    before it, so that sites with different numbers of epochs stay side by side. A round to which a
    site did not contribute interrupts its line.
    """

    def draw(axes: Axes) -> None:
        for index, site in enumerate(record.sites):
            for part in _unbroken_losses(record, site):
                _draw_site(axes, index, part)
        # From the start of the first round, so that the axis has whole rounds even for one round.
        axes.set_xlim(0, len(record.rounds) + 0.05)
        axes.set_xlabel("round (one point for each local epoch)")

    return _picture("losses", draw)


def has_losses(record: RunRecord) -> bool:
    """Return whether any site reported a training loss."""
    return any(_unbroken_losses(record, site) for site in record.sites)


def _unbroken_losses(record: RunRecord, site: str) -> list[list[tuple[float, float]]]:
    """Return the (place on the axis of rounds, loss) of a site, cut where it did not contribute."""
    parts: list[list[tuple[float, float]]] = [[]]
    for round_record in record.rounds:
        outcome = round_record.sites.get(site)
        if not isinstance(outcome, SiteContribution):
            parts.append([])
            continue
        count = len(outcome.epochs)
        parts[-1] += [
            (round_record.number - 1 + place / count, epoch.loss)
            for place, epoch in enumerate(outcome.epochs, start=1)
        ]
    return [part for part in parts if part]


def _picture(name: str, draw: Callable[[Axes], None]) -> str:
    """Return what ``draw`` draws, as SVG: equal bytes for equal values, whatever the settings."""
    # Matplotlib takes about half a second to import: only a report pays for it.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    stream = io.StringIO()
    without_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        draw(axes)
        figure.savefig(stream, format="svg", transparent=True, metadata=without_metadata)
    return _for_page(stream.getvalue(), name)


def _draw_site(axes: Axes, index: int, points: Sequence[tuple[float, float]]) -> None:
    style = line_style(index)
    axes.plot(
        *_columns(points),
        color=f"#fe00{style.colour:02x}",
        marker=style.marker,
        markeredgecolor=_PAPER,
        markeredgewidth=0.8,
        dashes=style.dashes or (None, None),
    )


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _for_page(svg: str, name: str) -> str:
    """Return the SVG element alone, fit to stand in a page beside others.

    Goes: the XML head and namespaces, which HTML does not use; the size in points, as the page
    sets the width; the style sheet, which would hold for the whole page; fonts and idle names.
    Stays: the names of shapes that are used, with the name of the picture in front, so that two
    pictures do not share one.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 class="plot">', svg, count=1)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r'( id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg).replace(
        "xlink:href", "href"
    )
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.strip()
