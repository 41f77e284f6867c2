"""What `import srucli` offers: `SRU`, loaded at its first use, since torch loads slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srucli.drop_in import SRU
else:

    def __getattr__(name: str) -> object:
        if name == "SRU":
            from srucli.drop_in import SRU

            return SRU
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["SRU"]
