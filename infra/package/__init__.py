"""Text-guided image finder: `from image_finder import Finder`.

The package's parts are the checkout's top-level directories, mapped in pyproject.toml. Loading is lazy: this module is
imported before each of them.
"""

from typing import TYPE_CHECKING

from image_finder.components.telemetry import switch_off

switch_off()  # before a module below imports MLflow, ZenML or ONNX Runtime

if TYPE_CHECKING:
    from image_finder.components.records.search import Hit, SearchResult
    from image_finder.components.search.finder import Finder
else:

    def __getattr__(name):
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"image_finder.components.{_MODULES[name]}"), name)


_MODULES = {"Finder": "search.finder", "Hit": "records.search", "SearchResult": "records.search"}
__all__ = ["Finder", "Hit", "SearchResult"]
