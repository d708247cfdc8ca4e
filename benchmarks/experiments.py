"""
Scans with the faults of real experiments, reconstructed by `pb.reconstruct(scan)` and compared with their goals.

    python benchmarks/experiments.py                                     # all faults, seed 201
    python benchmarks/experiments.py --names disc pos1 --seeds 201 202   # exact comes first for goals relative to it
    python benchmarks/experiments.py --own --seeds 202 203 204 205       # scans of the package's own simulation
    python benchmarks/experiments.py --names --star ../shared/data/siemens-star.npz    # a measured scan in two halves
    python benchmarks/experiments.py --names exact --off iterations=16   # cost of the fits that these options omit

The folder of ``--scans`` contains make_data.py, make_variants.py and quality.py; the project does not contain them.
quality.py compares every image with the known object. Each reconstruction runs in a process of its own with one
thread. Seconds are processor seconds of the call, without imports and scan. The table gives PSNR in dB.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from faults import FAULTS, Experiment, OuterTools, own_experiment
from numpy.typing import NDArray
from timing import key_value, machine, markdown_head, markdown_row, save_json, timed

import ptycho_backend as pb
from ptycho_backend.errors import PtychoError, first_line
from ptycho_backend.model_file.run import write_json
from ptycho_backend.quality.half_datasets import split_evenly
from ptycho_backend.quality.metrics import compare, first_crossing
from ptycho_backend.runtime.quantities import RESOLVED_BY_HALVES

OUTER = Path(__file__).resolve().parents[2] / "shared" / "experiments"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
PLAIN = "exact, options off"
# Lowest amplitude and phase PSNR, dB; a fault in RELATIVE may lose 1 dB of the exact scan.
GOALS = {
    "exact": (43.5, 46.0),
    "pos1": (42.5, 45.0),
    "pos2": (40.5, 42.5),
    "scale": (42.5, 45.0),
    "turned": (42.5, 45.0),
    "disc": (41.5, 42.5),
    "gauss": (41.5, 42.5),
    "noprobe": (41.5, 42.5),
    "modes": (42.0, 43.0),
    "flicker": (40.0, 43.0),
    "flicker50": (36.0, 38.0),
    "background": (41.0, 45.0),
    "sparse": (38.0, 43.0),
    "all": (38.0, 38.0),
}
RELATIVE, LOSS_DB = ("empty", "mad", "hot"), 1.0
MAX_S = 15.0
FITS_LOSS_DB, FITS_TIME = 0.3, 1.5  # of all fits on an exact scan, beside the same scan with the options off
STAR_GOALS = {"frc_half": 0.60, "frc_seventh": 0.70, "cpu_s": 40.0, "residual": 1.5}
COLUMNS = ("scan", "seed", "amplitude dB", "phase dB", "CPU s", "goal", "met")
STAR_COLUMNS = ("star", "FRC 0.5, of Nyquist", "FRC 1/7", "residual / shot noise", "CPU s", "met")


@dataclass
class Row:
    """
    Figures of one reconstruction.

    Parameters
    ----------
    name, simulation : str
        Fault, and the simulation of the scan: "outer" or "own".
    seed : int
    figures : dict
        Result of the child process and of the comparison; "problem" describes a failure.
    goal : (float, float), optional
        Lowest amplitude and phase PSNR, dB.
    max_s : float
        Most processor seconds.
    """

    name: str
    simulation: str
    seed: int
    figures: dict[str, Any] = field(default_factory=dict)
    goal: tuple[float, float] | None = None
    max_s: float = MAX_S

    @property
    def quality(self) -> tuple[float, float]:
        """Amplitude and phase PSNR, dB; -inf after a failure."""
        return self.figures.get("amplitude_db", -np.inf), self.figures.get("phase_db", -np.inf)

    @property
    def met(self) -> bool | None:
        """Whether quality and time reach the goal; None without a goal."""
        if self.goal is None:
            return None
        enough = all(found >= least for found, least in zip(self.quality, self.goal, strict=True))
        return "problem" not in self.figures and enough and self.figures["cpu_s"] <= self.max_s

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        goal = f"{self.goal[0]:.1f} / {self.goal[1]:.1f} in {self.max_s:.1f} s" if self.goal else "–"
        head, tail = (self.name, str(self.seed)), (goal, yes_or_no(self.met))
        if "problem" in self.figures:
            return (*head, self.figures["problem"], "–", "–", *tail)
        return (*head, *(f"{psnr:.1f}" for psnr in self.quality), f"{self.figures['cpu_s']:.1f}", *tail)


def main() -> None:
    """Reconstruct all scans and print the table."""
    options = arguments()
    if options.child:
        return reconstruct_alone(options.child)
    fields = {"options": dict(options.options), "off": dict(options.off or [])}
    report: dict[str, Any] = {"machine": machine(), **fields, "rows": []}
    tools = OuterTools(options.scans) if options.names else None
    if tools:
        print(f"{json.dumps(machine())}\n\n{markdown_head(COLUMNS)}")
    for row in rows(options, tools) if tools else ():
        print(markdown_row(row.cells()), flush=True)
        report["rows"].append(asdict(row) | {"met": row.met})
        if options.json:
            save_json(options.json, report)
    if options.star:
        report["star"] = star(pb.load_scan(options.star), dict(options.options), options.limit)
        print(f"\n{star_table(report['star'])}")
        if options.json:
            save_json(options.json, report)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, default=OUTER, metavar="FOLDER", help=f"default: {OUTER}")
    parser.add_argument("--names", nargs="*", choices=tuple(FAULTS), default=list(FAULTS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[201])
    parser.add_argument("--own", action="store_true", help="scans of the package's own simulation")
    parser.add_argument("--star", type=Path, metavar="PATH", help="measured scan: independent halves and residual")
    parser.add_argument("--options", nargs="+", type=key_value, default=[], metavar="KEY=VALUE", help="of the call")
    parser.add_argument("--off", nargs="+", type=key_value, metavar="KEY=VALUE", help="options without fits, for exact")
    parser.add_argument("--limit", type=float, default=600.0, metavar="SECONDS", help="longest time of a process")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # folder of the measured process
    return parser.parse_args()


def rows(options: argparse.Namespace, tools: OuterTools) -> Iterator[Row]:
    """Yield the rows of all seeds; the exact scan comes first where a goal refers to it."""
    simulation = "own" if options.own else "outer"
    for seed in options.seeds:
        done: dict[str, Row] = {}
        for name in in_order(options.names, options.off is not None):
            fault = "exact" if name == PLAIN else name
            experiment = own_experiment(fault, seed) if options.own else tools.experiment(fault, seed)
            fields = dict(options.off) if name == PLAIN else dict(options.options)
            row = done[name] = Row(name, simulation, seed, measured(experiment, fields, tools, options.limit))
            row.goal, row.max_s = goal_of(name, done)
            yield row


def in_order(names: list[str], with_plain: bool) -> list[str]:
    """Return the names with those first that goals of others refer to."""
    first = ([PLAIN] if with_plain else []) + (["exact"] if {"exact", *RELATIVE} & set(names) or with_plain else [])
    return [*first, *(name for name in names if name not in first)]


def goal_of(name: str, done: dict[str, Row]) -> tuple[tuple[float, float] | None, float]:
    """Return the lowest PSNR (amplitude, phase) of a scan, and the most seconds."""
    if name in RELATIVE:
        amplitude_db, phase_db = done["exact"].quality
        return (amplitude_db - LOSS_DB, phase_db - LOSS_DB), MAX_S
    goal = GOALS.get(name)
    if name != "exact" or PLAIN not in done or "problem" in done[PLAIN].figures:
        return goal, MAX_S
    least = tuple(max(pair) for pair in zip(goal, np.subtract(done[PLAIN].quality, FITS_LOSS_DB), strict=True))
    return (float(least[0]), float(least[1])), min(MAX_S, FITS_TIME * done[PLAIN].figures["cpu_s"])


def measured(experiment: Experiment, fields: dict[str, Any], tools: OuterTools, limit_s: float) -> dict[str, Any]:
    """Reconstruct a scan in a process of its own, and compare the image with the known object."""
    arrays = {"patterns": experiment.patterns, "positions_px": experiment.positions_px, "mask": experiment.mask}
    if experiment.probe is not None:
        arrays["probe"] = experiment.probe
    image, figures = run_child(arrays, {"fields": fields}, limit_s)
    return figures if image is None else {**figures, **tools.score(image, experiment)}


def run_child(
    arrays: dict[str, NDArray[Any]], task: dict[str, Any], limit_s: float
) -> tuple[pb.Image | None, dict[str, Any]]:
    """
    Run :func:`reconstruct_alone` in a process with one thread.

    Parameters
    ----------
    arrays : dict
        Patterns (counts), positions_px, mask, and a probe if there is a guess.
    task : dict
        "fields" of InferenceConfig; "assess" requests the residual.
    limit_s : float

    Returns
    -------
    Image or None, dict
        None after a failure; "problem" then describes it.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "scan.npz"), **arrays)
        Path(folder, "task.json").write_text(json.dumps(task), encoding="utf-8")
        command = [sys.executable, __file__, "--child", folder]
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **dict.fromkeys(THREADS, "1")},
                capture_output=True,
                text=True,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            return None, {"problem": f"no end within {limit_s:.0f} s"}
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [""]
            return None, {"problem": f"status {done.returncode}: {lines[-1]}"}
        figures = json.loads(Path(folder, "figures.json").read_text(encoding="utf-8"))
        if "problem" in figures:
            return None, figures
        with np.load(Path(folder, "image.npz"), allow_pickle=False) as file:
            origin = (float(file["origin_px"][0]), float(file["origin_px"][1]))
            return pb.Image(file["obj"], file["coverage"], origin), figures


def reconstruct_alone(folder: Path) -> None:
    """Reconstruct the scan of a folder on one processor; write the image, the times and all warnings."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    with np.load(folder / "scan.npz", allow_pickle=False) as file:
        arrays = dict(file)
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    figures: dict[str, Any] = {"warnings": warnings.texts}
    try:
        figures |= image_figures(folder, arrays, task)
    except PtychoError as error:
        unsupported = "probe" not in arrays and "probe" in first_line(error).lower()
        figures["problem"] = "not supported" if unsupported else f"{type(error).__name__}: {first_line(error)}"
    write_json(folder / "figures.json", figures)


def image_figures(folder: Path, arrays: dict[str, NDArray[Any]], task: dict[str, Any]) -> dict[str, Any]:
    """Reconstruct a scan, write its image, and return the times and the residual on request."""
    probe: Any = arrays.get("probe")
    scan = pb.Scan(arrays["patterns"], arrays["positions_px"], probe, "counts", arrays["mask"], source="experiment")
    reconstruct = pb.reconstruct  # imports on first use
    image, times = timed(lambda: reconstruct(scan, **task["fields"]))
    figures: dict[str, Any] = {"cpu_s": times.cpu_s, "wall_s": times.wall_s}
    if not np.isfinite(image.obj).all():
        return {**figures, "problem": "the image is not finite"}
    np.savez(folder / "image.npz", obj=image.obj, coverage=image.coverage, origin_px=image.origin_px)
    if task.get("assess"):
        found = pb.assess(scan, image, None, pb.InferenceConfig(**{**task["fields"], "half_datasets": False}))
        figures["residual"] = found.residual / found.shot_noise_floor
    return figures


class Warnings(logging.Handler):
    """Handler that stores the texts of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store a text."""
        self.texts.append(record.getMessage())


def star(scan: pb.Scan, fields: dict[str, Any], limit_s: float) -> dict[str, Any]:
    """
    Reconstruct a measured scan and two independent halves of it.

    Each half is a scan of its own, so it finds its own probe and positions. The residual is that of all patterns,
    over the shot noise.
    """
    parts = [slice(None), *split_evenly(scan)]
    images, figures = zip(
        *(
            run_child(measured_arrays(scan, rows), {"fields": fields, "assess": number == 0}, limit_s)
            for number, rows in enumerate(parts)
        ),
        strict=True,
    )
    result = {**figures[0], "halves_cpu_s": [figure.get("cpu_s") for figure in figures[1:]], "goals": STAR_GOALS}
    problems = [figure["problem"] for figure in figures if "problem" in figure]
    if problems:
        return {**result, "problem": problems[0], "met": False}
    one, other = images[1:]
    found = compare(one.obj, one.origin_px, other.obj, other.origin_px, scan.positions_px, max_shift_px=8.0)
    result["frc_half"] = found.frc_half
    result["frc_seventh"] = first_crossing(found.frc_frequency, found.frc, RESOLVED_BY_HALVES)
    return {**result, "met": star_met(result)}


def measured_arrays(scan: pb.Scan, rows: Any) -> dict[str, NDArray[Any]]:
    """Return the arrays of some patterns as counts."""
    positions_px = scan.positions_px[rows]
    return {"patterns": scan.counts(rows), "positions_px": positions_px, "probe": scan.probe, "mask": scan.mask}


def star_met(result: dict[str, Any]) -> bool:
    """Return whether the figures of the star reach all goals."""
    sharp = all(result[name] >= STAR_GOALS[name] for name in ("frc_half", "frc_seventh"))
    return sharp and all(result[name] <= STAR_GOALS[name] for name in ("cpu_s", "residual"))


def star_table(result: dict[str, Any]) -> str:
    """Return the figures of the star beside their goals."""
    goals = STAR_GOALS
    goal = ("goal", f"≥ {goals['frc_half']:.2f}", f"≥ {goals['frc_seventh']:.2f}", f"≤ {goals['residual']:.1f}")
    lines = [markdown_head(STAR_COLUMNS), markdown_row((*goal, f"≤ {goals['cpu_s']:.0f}", "–"))]
    if "problem" in result:
        return "\n".join([*lines, markdown_row((result["problem"], *"––––", "no"))])
    sharp = (f"{result['frc_half']:.2f}", f"{result['frc_seventh']:.2f}", f"{result['residual']:.2f}")
    return "\n".join([*lines, markdown_row(("found", *sharp, f"{result['cpu_s']:.1f}", yes_or_no(result["met"])))])


def yes_or_no(met: bool | None) -> str:
    """Return "yes", "no", or a dash without a goal."""
    return "–" if met is None else "yes" if met else "no"


if __name__ == "__main__":
    main()
