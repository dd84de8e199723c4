"""Libraries that take seconds to import, imported where a test first uses them."""

from importlib import import_module
from typing import Any


class Later:
    """Stands for a module, or for what has a name in it; `isinstance` needs the thing itself."""

    def __init__(self, module: str, name: str = "") -> None:
        self._module, self._name = module, name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # what pytest asks of everything in a test's module
            raise AttributeError(attribute)
        return getattr(self._itself(), attribute)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._itself()(*args, **options)

    def _itself(self) -> Any:
        module = import_module(self._module)
        return getattr(module, self._name) if self._name else module
