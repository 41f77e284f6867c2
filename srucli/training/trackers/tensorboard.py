"""TensorBoard: event files in the run's folder.

Its own writer opens files by path and would follow links, so it is not used.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from srucli.io.files import writing
from srucli.training.trackers.tracker import Start

FOLDER = "tensorboard"


class TensorBoard:
    """An event file for the steps after that of `start`. Its methods raise OutputError."""

    id = FOLDER

    def __init__(self, start: Start) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self.run = start.run.place
        now = time.time()
        self.name = f"events.out.tfevents.{now:.6f}.{platform.node()}.{os.getpid()}"
        # A new session replaces later steps that an interrupted process recorded.
        session = SessionLog(status=SessionLog.START)
        self._write(
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=start.step + 1, session_log=session),
        )

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the metrics after a step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self, *, finished: bool) -> None:
        """Do nothing: every event has been written."""

    def _write(self, *events: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        data = BytesIO()
        records = RecordWriter(data)
        for event in events:
            records.write(event.SerializeToString())
        with writing(self.run, FOLDER) as run, run.child(FOLDER, make=True) as folder:
            folder.append(self.name, data.getvalue())
