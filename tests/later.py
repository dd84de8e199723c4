"""Lazy imports of libraries that take seconds to import."""

from importlib import import_module
from typing import Any


class Later:
    """A proxy for a module, or for a name in it. Does not work with `isinstance`."""

    def __init__(self, module: str, name: str = "") -> None:
        self._module, self._name = module, name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest inspects every name in a test module
            raise AttributeError(attribute)
        return getattr(self._resolved(), attribute)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._resolved()(*args, **options)

    def _resolved(self) -> Any:
        module = import_module(self._module)
        return getattr(module, self._name) if self._name else module
