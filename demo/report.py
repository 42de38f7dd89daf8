"""The report: one HTML file that needs nothing beside itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from PIL import Image

from demo.views import Picture

METRICS = {  # name: (best value, what it means)
    "ap50": (
        "1",
        "Average precision: of all true and reported objects, the share that agree with IoU of at least 0.5.",
    ),
    "ap": ("1", "The same, averaged over IoU thresholds from 0.5 to 0.95: also asks for exact outlines."),
    "f1": ("1", "Harmonic mean of the share of objects found and the share of instances that are right, at IoU 0.5."),
    "sbd": ("1", "Symmetric best Dice: how well each object is covered by its best partner, in the worse direction."),
    "dic": ("0", "Difference in count: how many objects too many or too few."),
    "pq": ("1", "Panoptic quality: F1 times the mean IoU of the objects found."),
    "arand": ("0", "Adapted Rand error: how often two voxels are wrongly put together or kept apart."),
    "voi_split": ("0", "Variation of information, in bits: how much objects are cut into pieces."),
    "voi_merge": ("0", "Variation of information, in bits: how much objects are run together."),
    "annotated_iou": ("1", "Mean over annotated objects of the best IoU with an instance; needs no complete truth."),
}

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #222;
  background: #fafafa; max-width: 1180px; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.75rem; margin: 0 0 .6rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .3rem; }
p { max-width: 62rem; margin: .3rem 0 .8rem; } .lead { font-size: 1.08rem; }
.warning { background: #fff3cd; border-left: 4px solid #e0a800; padding: .6rem 1rem; }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.3rem 0; }
.numbers div { background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: .6rem 1.1rem; }
.numbers b { display: block; font-size: 1.45rem; line-height: 1.3; } .numbers span { color: #666; font-size: .87rem; }
.row { display: grid; gap: .8rem; align-items: start; } figure { margin: 0; }
figure img { width: 100%; display: block; image-rendering: pixelated; border-radius: 3px; }
figcaption { font-size: .87rem; color: #555; padding-top: .3rem; }
.legend { font-size: .87rem; color: #444; } .legend span { white-space: nowrap; margin-right: 1.4rem; }
.legend i { display: inline-block; width: .85em; height: .85em; border: 1px solid #888; margin-right: .45em; }
table { border-collapse: collapse; background: #fff; } td, th { text-align: left; padding: .35rem .9rem; }
td, th { border-bottom: 1px solid #e3e3e3; vertical-align: top; } td.value { font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: 1fr 1fr; gap: 1.6rem; } svg { width: 100%; background: #fff; }
svg text { font-size: 12px; fill: #444; } pre { background: #f0f0f0; padding: .7rem .9rem; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .84rem; border-radius: 4px; margin: .2rem 0 1rem; }
@media (max-width: 800px) { .row, .charts { grid-template-columns: 1fr 1fr !important; } }
"""


@dataclass(frozen=True)
class Figure:
    """A picture and what it shows."""

    caption: str
    picture: Picture


@dataclass(frozen=True)
class Row:
    """Pictures side by side under a heading; `columns` of them fill the width."""

    title: str
    text: str
    figures: Sequence[Figure]
    columns: int
    has_legend: bool = False


@dataclass(frozen=True)
class Content:
    """All that a report shows.

    Attributes:
        title, summary: heading, and what was done in one paragraph.
        warning: what the reader must not overlook; none if empty.
        numbers: name -> value of the few results that matter.
        rows: the pictures.
        legend: (colour as red, green, blue, meaning).
        metrics: name -> value, as the evaluation wrote them.
        metrics_note: how to read them.
        charts: (heading, SVG).
        commands: (title, duration, line to type).
        environment: name -> value.
    """

    title: str
    summary: str
    numbers: Mapping[str, str]
    rows: Sequence[Row]
    legend: Sequence[tuple[Sequence[int], str]]
    metrics: Mapping[str, float]
    commands: Sequence[tuple[str, str, str]]
    environment: Mapping[str, str]
    warning: str = ""
    metrics_note: str = ""
    charts: Sequence[tuple[str, str]] = field(default_factory=list)


def report_html(content: Content) -> str:
    """The whole report as one self-contained HTML page."""
    legend = _legend(content.legend)
    parts = [
        f"<h1>{escape(content.title)}</h1>",
        f'<p class="lead">{escape(content.summary)}</p>',
        f'<p class="warning">{escape(content.warning)}</p>' if content.warning else "",
        _numbers(content.numbers),
        *(_row(row, legend) for row in content.rows),
        _metrics(content.metrics, content.metrics_note),
        _charts(content.charts),
        _commands(content.commands),
        _environment(content.environment),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(content.title)}</title><style>{STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def data_uri(picture: Picture) -> str:
    """A picture as a PNG inside an address."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def wrapped(command: str) -> str:
    """One option a line, as a shell takes it.

    >>> print(wrapped("python run --seed 0"))
    python run \\
        --seed 0
    """
    return command.replace(" --", " \\\n    --")


def _numbers(numbers: Mapping[str, str]) -> str:
    boxes = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in numbers.items())
    return f'<div class="numbers">{"".join(boxes)}</div>'


def _row(row: Row, legend: str) -> str:
    figures = (
        f'<figure><img src="{data_uri(figure.picture)}" alt="{escape(figure.caption, quote=True)}">'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
        for figure in row.figures
    )
    return (
        f"<h2>{escape(row.title)}</h2><p>{escape(row.text)}</p>"
        f'<div class="row" style="grid-template-columns: repeat({row.columns}, 1fr)">{"".join(figures)}</div>'
        + (legend if row.has_legend else "")
    )


def _legend(entries: Sequence[tuple[Sequence[int], str]]) -> str:
    items = (
        f'<span><i style="background: rgb({", ".join(map(str, map(int, color)))})"></i>{escape(meaning)}</span>'
        for color, meaning in entries
    )
    return f'<p class="legend">{" ".join(items)}</p>'


def _metrics(metrics: Mapping[str, float], note: str) -> str:
    rows = []
    for name, value in metrics.items():
        best, meaning = METRICS.get(name, ("", ""))
        shown = f"{value:.0f}" if name == "dic" else f"{value:.3f}"
        rows.append(
            f'<tr><td><code>{escape(name)}</code></td><td class="value">{shown}</td><td>{best}</td>'
            f"<td>{escape(meaning)}</td></tr>"
        )
    head = "<tr><th>metric</th><th>value</th><th>best</th><th>meaning</th></tr>"
    return f"<h2>Metrics</h2><p>{escape(note)}</p><table>{head}{''.join(rows)}</table>"


def _charts(charts: Sequence[tuple[str, str]]) -> str:
    drawn = (f"<div><h2>{escape(heading)}</h2>{svg}</div>" for heading, svg in charts)
    return f'<div class="charts">{"".join(drawn)}</div>'


def _commands(commands: Sequence[tuple[str, str, str]]) -> str:
    steps = (
        f"<p><b>{escape(title)}</b> ({escape(duration)})</p><pre>{escape(wrapped(line))}</pre>"
        for title, duration, line in commands
    )
    text = "The steps are the bundle's own commands; type them in the repository's folder, with .venv active."
    return f"<h2>Commands</h2><p>{text}</p>{''.join(steps)}"


def _environment(environment: Mapping[str, str]) -> str:
    rows = (f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in environment.items())
    return f"<h2>Environment</h2><table>{''.join(rows)}</table>"
