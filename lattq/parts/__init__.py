"""Parts by name: transforms, quantizers and coders register their kind, files name kinds, and anyone can add one.

A part answers for itself: what it is called, its state in a file, the coder of its codes, and its forms for packed
products, tables and least squares, which are plain arrays. Kinds of lattq are plain words; those of another package are
"package/word", and the package names the module that registers them in an entry point of the group "lattq.parts".
"""

from lattq.parts.registry import register

__all__ = ["register"]
