"""Numbers and times of the stages of a command."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

NO_RATIOS: Mapping[str, tuple[str, float]] = MappingProxyType({})


class StagePlan:
    """
    Stages of a command in their order, with the time left for all of them.

    Parameters
    ----------
    stages : sequence of str
        Names of the stages; empty for stages without numbers. "half 1" also stands for "half 1: iterations".
    ratios : mapping of str to (str, float)
        Expected duration of a stage as a multiple of the duration of another one.
    """

    def __init__(self, stages: Sequence[str] = (), ratios: Mapping[str, tuple[str, float]] = NO_RATIOS) -> None:
        self.stages, self._ratios = tuple(stages), ratios
        self._current, self._started_s = "", time.perf_counter()
        self._durations_s: dict[str, float] = {}

    def start(self, stage: str) -> None:
        """Record the end of the current stage and the start of another one."""
        entry = self._entry(stage)
        if entry != self._current:
            now_s = time.perf_counter()
            if self._current:
                self._durations_s[self._current] = now_s - self._started_s
            self._current, self._started_s = entry, now_s

    def label(self, stage: str) -> str:
        """Return a stage with its number, as "2/5 iterations"; a stage outside the plan has none."""
        entry = self._entry(stage)
        return f"{self.stages.index(entry) + 1}/{len(self.stages)} {stage}" if entry in self.stages else stage

    def _entry(self, stage: str) -> str:
        """Return the entry of the plan for a stage; the stage itself outside the plan."""
        return next((entry for entry in self.stages if stage == entry or stage.startswith(f"{entry}: ")), stage)

    def total_left_s(self, stage_left_s: float) -> float | None:
        """
        Return the time left for this stage and all later ones, seconds.

        None for an unknown duration of a later stage, and for the last stage, whose own time left is the total.
        """
        later = self.stages[self.stages.index(self._current) + 1 :] if self._current in self.stages else ()
        current_s = time.perf_counter() - self._started_s + stage_left_s
        durations = {**self._durations_s, self._current: current_s}
        total_s = stage_left_s
        for stage in later:
            basis, ratio = self._ratios.get(stage, ("", 0.0))
            if basis not in durations:
                return None
            total_s += ratio * durations[basis]
        return total_s if later else None
