"""Parts by name: transforms, quantizers and coders register their kind, files name kinds, and anyone can add one.

A part answers for itself: what it is called, its state in a file, the coder of its codes, and its forms for packed
products, tables and least squares, which are plain arrays. Kinds of lattq are plain words; those of another package are
"package/word", and the package names the module that registers them as an entry point of the group "lattq.parts".
"""

from lattq.parts.forms import NestedForm, NumberForm, RunScales, TableForm
from lattq.parts.registry import GROUP, ROLES, find, kind_of, register, require_part

__all__ = [
    "GROUP",
    "ROLES",
    "NestedForm",
    "NumberForm",
    "RunScales",
    "TableForm",
    "find",
    "kind_of",
    "register",
    "require_part",
]
