"""What `import srucli` offers: `SRU`, loaded at its first use, since torch loads slowly.

Nothing is imported here: under `python -m srucli` the current folder is first in `sys.path` until
`__main__.py` has taken it out.
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
