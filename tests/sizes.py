"""How much memory things take, as the interpreter counts it."""

import gc
import sys
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

# What is no data; a method leads to whoever traces the tests.
_CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, CodeType)


def reachable(*roots: object) -> int:
    """Return the bytes of everything that `roots` refer to."""
    seen: dict[int, object] = {}
    todo = list(roots)
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, _CODE):
            continue
        if isinstance(found, dict) and "__name__" in found:  # a module's
            continue
        seen[id(found)] = found
        todo += gc.get_referents(found)
    return sum(map(sys.getsizeof, seen.values()))
