"""The first file that a child process runs: it takes its parent's packages, and then one module.

`children.py` starts it as a file, with -P, and gives the parent's `sys.path` without the current
folder. The package that holds this file is imported from where it is, be that the current folder:
other modules there stay out of reach.
"""

import json
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def take_package(folder: Path) -> None:
    """Import a package from its folder, whatever of that name `sys.path` has."""
    spec = PathFinder.find_spec(folder.name, [str(folder.parent)])
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    sys.modules[folder.name] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    handed_on = json.loads(sys.argv[1])
    sys.path[:] = [*handed_on, *(entry for entry in sys.path if entry not in handed_on)]
    package = Path(__file__).resolve().parents[1]
    take_package(package)
    import_module(sys.argv[2]).main()
