"""The first file that a child process runs: set `sys.path`, then run `main` of a module.

`children.py` starts it with -P and passes the parent's `sys.path` without the current folder. The
package of this file is imported from its own folder, even if that is in the current folder, where
other modules are not found. Processes that `main` starts with multiprocessing's "spawn" import this
file first.
"""

import json
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def import_package(folder: Path) -> None:
    """Import a package from its folder, whatever `sys.path` has of that name."""
    spec = PathFinder.find_spec(folder.name, [str(folder.parent)])
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    sys.modules[folder.name] = package
    spec.loader.exec_module(package)


package = Path(__file__).resolve().parents[1]

if __name__ == "__mp_main__":
    import_package(package)
elif __name__ == "__main__":
    parent_path = json.loads(sys.argv[1])
    sys.path[:] = [*parent_path, *(entry for entry in sys.path if entry not in parent_path)]
    import_package(package)
    import_module(sys.argv[2]).main()
