"""Importing Gradio in half the time (1.5 s for 2.8 s).

On each import Gradio 6 parses its own sources to write .pyi files beside them: slow, and it writes into its
installation. Here the function that does so is replaced as soon as its module has been loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_MODULE, _FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


def import_gradio() -> None:
    """Import Gradio and the page's layout, with Gradio's reports home turned off."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        import app.layout  # noqa: F401
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == _MODULE else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if hasattr(module, _FUNCTION):
            setattr(module, _FUNCTION, lambda *_: None)
