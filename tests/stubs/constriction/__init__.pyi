# constriction is a compiled module without type information: what lattq uses of it, for pyright.
from . import stream as stream
