"""The rows of the accuracy benchmark as a markdown table and as curves."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import Row

COLUMNS = {
    "ap50": "AP50",
    "ap": "AP",
    "f1": "F1",
    "pq": "PQ",
    "sbd": "SBD",
    "dic": "DiC",
    "arand": "ARand error",
    "voi_split": "VoI split",
    "voi_merge": "VoI merge",
    "annotated_iou": "best IoU",
}
SPARSE, FULL, CLASSICAL = "sparse", "full supervision", "classical"
STUDENT = "--inference_network @network --other_network @teacher"  # in dense tissue, as before the teacher was kept


def markdown_table(rows: Sequence[Row]) -> str:
    """One line for each row; columns as in `COLUMNS`, after what was done and what it cost."""
    names = ["set", "supervision", "objects", "seed", "options", "iterations", "minutes", "on", *COLUMNS.values()]
    cells = [
        [
            row["set"],
            f"{100 * row['fraction']:g} %" if row["method"] == SPARSE else row["method"],
            _or_empty(row["objects"]),
            _or_empty(row["seed"]),
            f"`{row['options']}`" if row["options"] else "",
            _or_empty(row["iterations"]),
            f"{row['minutes']:.1f}",
            row["device"],
            *(f"{row[name]:.3f}" for name in COLUMNS),
        ]
        for row in rows
    ]
    lines = [names, ["---"] * len(names), *cells]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def draw_curves(rows: Sequence[Row], folder: Path) -> list[Path]:
    """AP50 against annotated objects, a line for each length of training, and against minutes, one a fraction; PNG."""
    return [
        _draw(rows, "objects", _length, "annotated objects", folder / "accuracy_objects.png"),
        _draw(rows, "minutes", _annotated, "minutes of training", folder / "accuracy_minutes.png"),
    ]


def _length(row: Row) -> str:
    """What was planned, minutes or iterations, and how."""
    length = f"{row['iterations']} iterations" if row["budget"] is None else f"{row['budget']:g} minutes"
    return f"{length}{circumstances(row)}"


def _annotated(row: Row) -> str:
    return f"{row['fraction']:.0%} annotated{circumstances(row)}"


def circumstances(row: Row) -> str:
    """Options that change the training, and a GPU."""
    options = re.sub(r"--val_interval \d+ ?", "", row["options"]).replace(STUDENT, "student").strip()
    gpu = "" if row["device"].endswith("threads") else row["device"].split(",")[0]  # a CPU is named with its threads
    return "".join(f", {part}" for part in (options, gpu) if part)


def _draw(rows: Sequence[Row], along: str, kind: Callable[[Row], str], name: str, target: Path) -> Path:
    """A panel for each set; one line for each kind of row, the mean over the seeds, and its points."""
    from matplotlib.figure import Figure  # here, so that a training needs no matplotlib
    from matplotlib.ticker import LogLocator, NullFormatter

    sets = sorted({row["set"] for row in rows})
    columns = min(3, len(sets))
    lines = math.ceil(len(sets) / columns)
    figure = Figure(figsize=(4.4 * columns, 5 * lines), layout="constrained")
    for number, set_ in enumerate(sets, start=1):
        shared = figure.axes[0] if figure.axes and along == "minutes" else None  # sets differ in their objects
        axes = figure.add_subplot(lines, columns, number, sharex=shared)
        here = [row for row in rows if row["set"] == set_]
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in sorted((row for row in here if row["method"] == SPARSE), key=_planned):
            groups[kind(row)].append(row)
        for label, group in groups.items():
            axes.plot(*_means(group, along), marker="", label=label)
            axes.scatter([row[along] for row in group], [row["ap50"] for row in group], s=12)
        for method, style in ((FULL, "--"), (CLASSICAL, ":")):
            best = max((row["ap50"] for row in here if row["method"] == method), default=None)
            if best is not None:
                axes.axhline(best, color="black", linestyle=style, linewidth=1, label=method)
        axes.set(title=set_, xlabel=name, ylabel="AP50", ylim=(0, 1), xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    return target


def _planned(row: Row) -> tuple[float, float, int]:
    return row["fraction"], row["budget"] or 0, row["iterations"]


def _means(rows: Sequence[Row], along: str) -> tuple[list[float], list[float]]:
    """Mean AP50 over the seeds: rows that share device, options and what was planned are one point."""
    points: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        length = row["epochs"] if row["budget"] is None else None
        points[row["fraction"], row["budget"], length, row["device"], row["options"]].append(row)
    means = [
        (sum(row[along] for row in group) / len(group), sum(row["ap50"] for row in group) / len(group))
        for group in points.values()
    ]
    x, y = zip(*sorted(means), strict=True)
    return list(x), list(y)


def _or_empty(value: Any) -> Any:
    return "" if value is None else value
