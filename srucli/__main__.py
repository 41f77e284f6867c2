"""`python -m srucli` is the `srucli` command, without Python's habit of importing from anywhere.

`python -m` puts the current folder first in `sys.path`. Python has then imported a few modules of
its own already; `python -P -m srucli` and `srucli` keep those safe too.
"""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

from srucli.cli import main

if __name__ == "__main__":
    main()
