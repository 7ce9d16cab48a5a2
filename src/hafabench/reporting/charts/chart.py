"""Charts as SVG: drawn by matplotlib, inlined into the HTML page, or arranged in a figure file."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

from hafabench.formatting.text import one_line

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

WIDTH = 288.0  # points: text of 8 points stays readable on a page as narrow as a phone
_TOP, _BOTTOM, _LEGEND_ROW = 20.0, 35.0, 12.5  # points, for the title, the x axis with its label, and the legend
PALETTE = {
    "bg": "#fafaf8",
    "ink": "#1d1f22",
    "muted": "#5a6069",
    "line": "#dddcd6",
    "faint": "#e9e8e2",
    "merger": "#b3480a",
    "baseline": "#0a63a8",
    "other": "#6b7078",
    "series0": "#0072b2",
    "series1": "#d55e00",
    "series2": "#009e73",
    "series3": "#b5578f",
    "series4": "#a87700",
    "series5": "#2b8bc0",
    "series6": "#333333",
    "series7": "#8c6d1f",
}
"""Colours of the light theme by name. The page's style sheet has a variable for each name, with one value per theme.

The colours of the series follow Okabe and Ito (https://jfly.uni-koeln.de/color/), darkened if they would be too
pale on a light background. Readers with colour blindness can distinguish them.
"""
SERIES = [colour for name, colour in PALETTE.items() if name.startswith("series")]
LINE_STYLES = ("-", "--", ":", "-.")
_STYLE: dict[RcKeyType, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    # Names are no formulas.
    "text.parse_math": False,
    "text.color": PALETTE["ink"],
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": PALETTE["ink"],
    "axes.labelcolor": PALETTE["muted"],
    "axes.edgecolor": PALETTE["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALETTE["faint"],
    "grid.linewidth": 0.6,
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["muted"],
    "ytick.labelcolor": PALETTE["muted"],
    "figure.facecolor": "none",
    "legend.loc": "lower center",
    "legend.borderaxespad": 0.1,
    "legend.labelspacing": 0.35,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "svg.fonttype": "none",
    # Without a salt, the ids of SVG elements are random.
    "svg.hashsalt": "hafabench",
}
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_GAP = 16.0  # points between the charts of a figure file
_LINE_HEIGHT = 18.0
ElementTree.register_namespace("", _SVG)


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: Its name, unique in a report.
        description: What it shows, in a sentence for readers who cannot see it.
        svg: The SVG element, in the colours of `PALETTE`.
        width, height: Its size in points, which are the units of the view box.
    """

    name: str
    description: str
    svg: str
    width: float
    height: float

    @property
    def themed_svg(self) -> str:
        """The SVG element for the page: colours are variables of the style sheet, and the page sets the size."""
        svg = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"', r"\1", self.svg, count=1)
        names = {colour: name for name, colour in PALETTE.items()}
        return re.sub("|".join(names), lambda found: f"var(--{names[found[0]]})", svg)


@contextmanager
def new_figure(height: float, *, legend_rows: int, left: float = 43.0, right: float = 8.0) -> Iterator[Figure]:
    """Make a figure of a chart's width in the style of the charts. It has to be drawn within this context.

    The margins are arguments, because matplotlib's layout engines take twice as long as all drawing.

    Args:
        height: The height of the axes in points; the title, the x axis and the legend are added.
        legend_rows: The number of rows of the legend at the lower edge.
        left: The left margin for the y axis and its label, in points.
        right: The right margin, in points.
    """
    bottom = _BOTTOM + _LEGEND_ROW * legend_rows
    total = _TOP + height + bottom
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH / 72, total / 72))
        figure.subplots_adjust(left / WIDTH, bottom / total, 1 - right / WIDTH, 1 - _TOP / total)
        yield figure


def make_chart(name: str, figure: Figure, description: str, tooltips: Mapping[str, str] | None = None) -> Chart:
    """Render a figure as SVG. The same figure gives the same text.

    Args:
        name: The name of the chart, which becomes a prefix of the element ids.
        figure: A figure made by `new_figure`.
        description: What the chart shows.
        tooltips: The text of each tooltip by the group id of its artist (``artist.set_gid``).
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    # The metadata is not needed, and a style sheet inside an inline SVG would apply to the whole page.
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        if element.get("id") in (tooltips or {}):
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = one_line((tooltips or {})[element.attrib["id"]])
            element.insert(0, title)
    _prefix_ids(root, f"{name}-")
    width, height = (float(size) for size in root.attrib["viewBox"].split()[2:])
    root.set("width", f"{width:g}")
    root.set("height", f"{height:g}")
    root.set("role", "img")
    root.set("aria-label", one_line(description))
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    return Chart(name, description, ElementTree.tostring(root, encoding="unicode"), width, height)


def _prefix_ids(root: ElementTree.Element, prefix: str) -> None:
    """Prefix the ids that elements refer to, delete all others, and round the coordinates of paths."""
    text = ElementTree.tostring(root, encoding="unicode")
    referenced = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier is not None and identifier in referenced:
            element.set("id", prefix + identifier)
        if _LINK in element.attrib:
            element.set("href", "#" + prefix + element.attrib.pop(_LINK)[1:])
        for key, value in element.items():
            if "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}"))
        if "d" in element.attrib:
            element.set("d", re.sub(r"(\.\d\d)\d+", r"\1", element.attrib["d"]).replace("\n", ""))


def compose_figure(rows: Sequence[Sequence[Chart]], *, heading: str, empty: str) -> str:
    """Arrange charts in one SVG file and return its text, which begins with an XML declaration.

    Args:
        rows: The charts of each row; there may be none.
        heading: A line above the charts; it may be empty.
        empty: The sentence that a figure without charts shows.
    """
    text = one_line(heading if rows else empty)
    width = max([sum(chart.width + _GAP for chart in row) for row in rows], default=WIDTH) + _GAP
    root = ElementTree.Element(f"{{{_SVG}}}svg", {"role": "img"})
    ElementTree.SubElement(root, f"{{{_SVG}}}title").text = text
    background = {"width": "100%", "height": "100%", "style": f"fill: {PALETTE['bg']}"}
    ElementTree.SubElement(root, f"{{{_SVG}}}rect", background)
    top = _GAP
    for line in textwrap.wrap(text, int(width / 6)):
        style = f"font: bold 10px 'DejaVu Sans', sans-serif; text-anchor: middle; fill: {PALETTE['ink']}"
        attributes = {"x": f"{width / 2:g}", "y": f"{top + 10:g}", "style": style}
        ElementTree.SubElement(root, f"{{{_SVG}}}text", attributes).text = line
        top += _LINE_HEIGHT
    for row in rows:
        left = _GAP
        for chart in row:
            element = ElementTree.fromstring(chart.svg)
            element.set("x", f"{left:g}")
            element.set("y", f"{top:g}")
            root.append(element)
            left += chart.width + _GAP
        top += max(chart.height for chart in row) + _GAP
    root.set("viewBox", f"0 0 {width:g} {top:g}")
    root.set("width", f"{width:g}pt")
    root.set("height", f"{top:g}pt")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
