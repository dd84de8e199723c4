"""Memory held by objects, as the interpreter counts it."""

import gc
import sys
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

# Not data; a method could lead to a coverage tracer.
_CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, CodeType)


def reachable(*roots: object) -> int:
    """Return the size in bytes of all objects reachable from `roots`."""
    seen: dict[int, object] = {}
    todo = list(roots)
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, _CODE):
            continue
        if isinstance(found, dict) and "__name__" in found:  # a module's globals
            continue
        seen[id(found)] = found
        todo += gc.get_referents(found)
    return sum(map(sys.getsizeof, seen.values()))
