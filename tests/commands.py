"""Run several commands of srucli in one process, which imports torch only once.

Usage: python -m tests.commands WORDS... [, WORDS...]...

Each command starts as `python -m srucli` does, with the current folder first in `sys.path`, so this
module imports only what Python has imported before. After each, a line has its exit code. Words
that start with `!` are run by a shell instead.
"""

import os
import runpy
import sys


def run(words: list[str]) -> object:
    """Run a command in this process, and return its exit code."""
    environment = dict(os.environ)
    if sys.path[0] != os.getcwd():
        sys.path.insert(0, os.getcwd())
    sys.argv = ["srucli", *words]
    try:
        runpy.run_module("srucli", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code or 0
    finally:
        os.environ.clear()
        os.environ.update(environment)
    return 0


def main() -> None:
    """Run the commands of this process's arguments."""
    commands: list[list[str]] = [[]]
    for word in sys.argv[1:]:
        if word == ",":
            commands.append([])
        else:
            commands[-1].append(word)
    for words in commands:
        if words[0] == "!":
            os.system(" ".join(words[1:]))
        else:
            print("code", run(words), flush=True)


if __name__ == "__main__":
    main()
