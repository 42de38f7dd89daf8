"""Two small charts as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

WIDTH, HEIGHT = 520, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 18, 40  # margins for the axes' numbers and names
FOUND, MISSED, INK, FAINT = "#2f6f8f", "#b9b9b9", "#333333", "#c9dbe4"


def iou_histogram(best_ious: ArrayLike, found_at: float = 0.5) -> str:
    """How many true objects have which best IoU, in tenths; those below `found_at` in grey."""
    counts, edges = np.histogram(np.asarray(best_ious), bins=np.arange(11) / 10)
    highest = max(1, int(counts.max()))
    width = (WIDTH - LEFT - RIGHT) / len(counts)
    parts = []
    for index, (count, edge) in enumerate(zip(counts.tolist(), edges, strict=False)):
        height = (HEIGHT - TOP - BOTTOM) * count / highest
        x, y = LEFT + index * width, HEIGHT - BOTTOM - height
        color = FOUND if edge >= found_at - 1e-9 else MISSED
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{height:.1f}" fill="{color}"/>'
        )
        parts.append(_text(x + width / 2, y - 4, str(count) if count else ""))
        parts.append(_text(x, HEIGHT - BOTTOM + 15, f"{edge:.1f}"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - BOTTOM + 15, "1.0", "end"))
    return _svg(parts, "best IoU of a true object with any instance", "Histogram of the IoU per object")


def loss_curve(losses: Sequence[float], smoothing: int = 20) -> str:
    """Training loss of each iteration, faint, and its running mean over `smoothing` iterations."""
    values = np.asarray(losses, float)
    window = max(1, min(smoothing, len(values)))
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    low, high = np.percentile(values, [1, 99])  # without the outliers of single patches
    high = max(high, low + 1e-6)
    x = LEFT + (WIDTH - LEFT - RIGHT) * np.arange(len(values)) / max(1, len(values) - 1)

    def line(ordinates: np.ndarray, abscissas: np.ndarray, color: str, width: float) -> str:
        heights = (np.clip(ordinates, low, high) - low) / (high - low)
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * heights
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(abscissas, y, strict=True))
        return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{width}"/>'

    parts = [line(values, x, FAINT, 1), line(mean, x[window - 1 :], FOUND, 2)]
    parts += [_text(LEFT - 6, TOP + 4, f"{high:.1f}", "end"), _text(LEFT - 6, HEIGHT - BOTTOM + 4, f"{low:.1f}", "end")]
    parts += [
        _text(LEFT, HEIGHT - BOTTOM + 15, "1"),
        _text(WIDTH - RIGHT, HEIGHT - BOTTOM + 15, str(len(values)), "end"),
    ]
    return _svg(parts, f"iteration (line: mean of {window})", "Training loss")


def read_losses(log_dir: Path) -> list[float]:
    """Training losses, in order, from TensorBoard's event files; empty when there are none."""
    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0})  # 0: keep all
    events.Reload()
    return [event.value for event in events.Scalars("loss")] if "loss" in events.Tags()["scalars"] else []


def _svg(parts: list[str], x_name: str, title: str) -> str:
    base = HEIGHT - BOTTOM
    axis = f'<line x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}" stroke="{INK}"/>'
    name = _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_name)
    body = "".join([*parts, axis, name])
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{body}</svg>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>' if text else ""
