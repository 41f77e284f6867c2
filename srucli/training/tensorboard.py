"""Write TensorBoard's event files of a run.

TensorBoard's own writer opens its files by path and would follow links.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from io import BytesIO
from os import getpid
from typing import Any

from srucli.io.files import Place, writing

FOLDER = "tensorboard"


class Board:
    """An event file for the steps after `step`. Its methods raise OutputError."""

    def __init__(self, run: Place, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self.run = run
        now = time.time()
        self.name = f"events.out.tfevents.{now:.6f}.{platform.node()}.{getpid()}"
        # A new session replaces later steps that an interrupted process recorded.
        start = SessionLog(status=SessionLog.START)
        self._write(
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=step + 1, session_log=start),
        )

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the metrics after a step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, *events: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        data = BytesIO()
        records = RecordWriter(data)
        for event in events:
            records.write(event.SerializeToString())
        with writing(self.run, FOLDER) as run, run.child(FOLDER, make=True) as folder:
            folder.append(self.name, data.getvalue())
