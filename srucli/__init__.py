"""The public Python API: `srucli.SRU`, imported at its first use because torch loads slowly.

Nothing is imported here: under `python -m srucli` the current folder comes first in `sys.path`
until `__main__.py` removes it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from srucli.model.drop_in import SRU
else:

    def __getattr__(name):
        if name == "SRU":
            from srucli.model.drop_in import SRU

            return SRU
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["SRU"]
