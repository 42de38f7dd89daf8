"""Time and peak memory of one function call, on a CPU or a GPU, and a table that is also a JSON file."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from scripts.files.whole_files import write_json

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"
MAPPED = 2**16  # bytes; glibc gives larger blocks back when they are freed
RESET_PEAK = Path("/proc/self/clear_refs")  # Linux


def median_seconds(call: Callable[[], Any], repeats: int, device: torch.device | str = "cpu") -> float:
    """Median wall time of `repeats` calls after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        wait_for(device)
        start = time.perf_counter()
        call()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def extra_megabytes(
    prepare: Callable[..., Callable[[], Any]],
    *arguments: Any,
    device: torch.device | str = "cpu",
    without_holes: bool = False,
) -> float:
    """By how much the peak memory grows while ``prepare(*arguments)()`` runs, beyond what `prepare` allocated.

    Of a GPU it is the memory of tensors. Measured in a process of its own, because the C library keeps some of what is
    freed: what it kept before is taken again unseen, and what it keeps on the way is counted. `without_holes` lets it
    give all back at once, which takes time.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(sender, prepare, arguments, device))
    with mock.patch.dict(os.environ, {"MALLOC_MMAP_THRESHOLD_": str(MAPPED)} if without_holes else {}):
        process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()
        receiver.close()


def report(name: str, rows: Sequence[Row], title: str) -> None:
    """Print the rows as a table; add them to ``results/NAME.json`` under `title`."""
    columns = list(rows[0])
    lines = [columns, *([_text(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(f"\n{title}")
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), flush=True)
    path = RESULTS / f"{name}.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    content["machine"] = machine()
    content[title] = list(rows)
    write_json(path, content)


def results_name(name: str, device: torch.device | str) -> str:
    """What is measured on a GPU has a file of its own."""
    return name if torch.device(device).type == "cpu" else f"{name}_{torch.device(device).type}"


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"device": device, "threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__}


def wait_for(device: torch.device | str) -> None:
    """Until a GPU has done what it was asked for; others do it at once."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _report_peak(
    sender: Connection,
    prepare: Callable[..., Callable[[], Any]],
    arguments: tuple[Any, ...],
    device: torch.device | str,
) -> None:
    call = prepare(*arguments)
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif os.access(RESET_PEAK, os.W_OK):
        RESET_PEAK.write_text("5")
    before = peak_megabytes(device)
    call()
    sender.send(peak_megabytes(device) - before)


def peak_megabytes(device: torch.device | str = "cpu") -> float:
    """Peak memory of this process so far, in MiB; of a GPU, that of tensors."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux `getrusage` starts with the peak of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
