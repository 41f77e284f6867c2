"""MLflow: a run in the store that MLFLOW_TRACKING_URI names, with the settings as parameters.

Only MLflow's client is used: its other functions have one active run for the whole process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from srucli.config import flat
from srucli.io.console import say
from srucli.training.trackers.tracker import Start

# The most parameters that MLflow takes at once.
MAX_PARAMS = 100


class MLflow:
    """A run of MLflow, new or continued."""

    def __init__(self, start: Start) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient()
        self._last = -1
        if start.id is None:
            self.id = self._created(start)
            return
        self.id = start.id
        self.client.update_run(self.id, status="RUNNING")
        for name in self.client.get_run(self.id).data.metrics:
            steps = (metric.step for metric in self.client.get_metric_history(self.id, name))
            self._last = max(self._last, *steps)

    def _created(self, start: Start) -> str:
        """Make a run with the settings; return its id."""
        from mlflow.entities import Param

        run = self.client.create_run(self._experiment(), run_name=start.run.path.absolute().name)
        found: str = run.info.run_id
        settings = flat(start.run.config().model_dump(mode="json"))
        params = [Param(key, str(value)) for key, value in settings.items()]
        for first in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(found, params=params[first : first + MAX_PARAMS])
        say(f"mlflow: run {found}")
        return found

    def _experiment(self) -> str:
        """Return the experiment that MLflow's variables name, made if it is missing."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name:
            return os.environ.get("MLFLOW_EXPERIMENT_ID") or "0"
        known = self.client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self.client.create_experiment(name))

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Send the metrics after a step, unless the run has them."""
        from mlflow.entities import Metric

        if step > self._last:
            now = int(time.time() * 1000)
            metrics = [Metric(name, value, now, step) for name, value in scalars.items()]
            self.client.log_batch(self.id, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        """Say that the run has ended, or was interrupted."""
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")
