"""Run `srucli` for shell scripts, in forks of one process that has imported what takes seconds.

Usage: python -m tests.fork_server SOCKET

A client (`CLIENT`, a program called `srucli`) sends its arguments, folder, environment and
descriptors 0 to 2, and exits with the exit code that it gets back.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import sys
import traceback
from contextlib import suppress
from importlib import import_module

from srucli.cli.process import set_environment

SLOW = (
    *("matplotlib.figure", "optuna", "scipy.stats", "torch"),
    *("srucli.api.training", "srucli.experiments.compare", "srucli.inference.evaluation"),
)
LIMIT = 1 << 17
# `{small}` is a dict of words that are added to a command's own, by its name.
CLIENT = """#!{python} -ISs
import json, os, socket, sys
words = sys.argv[1:]
given = {small}.get(words[0], [])
if {{"--from", "--resume"}} & {{*words}}:
    given = {kept}
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    message = json.dumps([words + given, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [message], [0, 1, 2])
    answer = server.recv(1)
sys.exit(answer[0] if answer else "the process that ran srucli was killed")
"""


def run(words: list[str]) -> int:
    """Run a command in this process, and return its exit code."""
    sys.argv = ["srucli", *words]
    sys.stdin = os.fdopen(0, encoding="utf-8")
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    try:
        runpy.run_module("srucli", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def answer(client: socket.socket) -> None:
    """Run the command of a client in this process, which is a fork, and send the exit code."""
    message, descriptors, _, _ = socket.recv_fds(client, LIMIT, 3)
    words, folder, environment = json.loads(message)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    client.send(bytes([run(words)]))


def main() -> None:
    """Say that the imports are done, and answer clients until this process is stopped."""
    set_environment()
    for name in SLOW:
        with suppress(ImportError):  # optuna is optional
            import_module(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(sys.argv[1])
        server.listen()
        print("ready", flush=True)
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                answer(client)
                os._exit(0)
            client.close()


if __name__ == "__main__":
    main()
