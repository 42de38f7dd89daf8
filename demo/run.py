"""Train, segment and evaluate on a small sample or on your own data, and write a report.

    python demo/run.py                  # a generated 3D sample with known truth
    python demo/run.py --dataset DIR    # your images in DIR/images, their labels in DIR/labels

Writes demo/report.html and demo/metrics.json; everything else goes to demo/output, which is emptied first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "spoco_bundle"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.plan import ROOT, Plan, PlanError, check_dataset, link_dataset, plan_dataset, plan_sample
from demo.report import report_html
from demo.results import collect
from demo.steps import StepError, plan_steps, relative, run_step
from scripts.run.errors import refusal_behind

OUTPUT = ROOT / "demo" / "output"
REPORT, METRICS = ROOT / "demo" / "report.html", ROOT / "demo" / "metrics.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, metavar="DIR", help="folder with the folders images and labels")
    dataset = parser.parse_args(arguments).dataset
    try:
        run(dataset.expanduser().resolve() if dataset else None)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except Exception as error:
        # MONAI wraps what the bundle says about a user's file in errors of its own
        reason = error if isinstance(error, StepError | PlanError | OSError) else refusal_behind(error)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 1
    return 0


def run(dataset: Path | None) -> None:
    """All steps, from the data to the report."""
    start = time.monotonic()
    plan = prepare(dataset)
    of_total = f" of {plan.total}" if plan.total else ""
    print(f"{plan.annotated}{of_total} objects are annotated; patch size {list(plan.patch_size)}.")
    steps, seconds = plan_steps(plan, OUTPUT), {}
    for number, step in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {step.title}\n{step.command}", flush=True)
        seconds[step.name] = run_step(step, OUTPUT / f"{step.name}.log")
        print(f"  done in {seconds[step.name]:.0f} s", flush=True)
    content = collect(plan, OUTPUT, steps, seconds)
    shutil.copyfile(OUTPUT / "evaluation" / "metrics.json", METRICS)
    REPORT.write_text(report_html(content), encoding="utf-8")
    write_facts(plan, seconds, time.monotonic() - start)
    print(f"\n{content.summary}\n{content.warning}".rstrip())
    print(f"\nReport: {relative(REPORT)}\nMetrics: {relative(METRICS)}\nThe whole took {_minutes(start)} minutes.")


def prepare(dataset: Path | None) -> Plan:
    """Read and check a user's data before anything is deleted, empty the output folder, and lay out the data in it."""
    if dataset is None:
        empty_output()
        print("Making a sample: two volumes of crowded nuclei ...", flush=True)
        return plan_sample(OUTPUT)
    if dataset.is_relative_to(OUTPUT):
        raise PlanError(f"{dataset}: lies in {relative(OUTPUT)}, which is emptied first; copy it elsewhere.")
    pairs = check_dataset(dataset)
    plan = plan_dataset(pairs, OUTPUT)
    empty_output()
    link_dataset(pairs, plan)
    return plan


def empty_output() -> None:
    """Remove what an earlier run wrote."""
    # of an earlier run; should this one fail, nobody shall take its report for that of this one
    for path in (REPORT, METRICS):
        path.unlink(missing_ok=True)
    if OUTPUT.exists():
        shutil.rmtree(OUTPUT)  # removes links, but never follows them
    OUTPUT.mkdir(parents=True)


def write_facts(plan: Plan, seconds: dict[str, float], total: float) -> None:
    """Write what the report says in numbers beside the metrics to demo/output/facts.json."""
    facts = {name: relative(value) if isinstance(value, Path) else value for name, value in asdict(plan).items()}
    facts |= {"seconds": {**seconds, "total": total}}
    (OUTPUT / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _minutes(start: float) -> str:
    return f"{(time.monotonic() - start) / 60:.1f}"


if __name__ == "__main__":
    sys.exit(main())
