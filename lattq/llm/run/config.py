"""The block of lattq in `config.json`: which layers are quantized, and what binds them to the files."""

from collections.abc import Mapping
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from lattq._options import as_flag
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run.digests import digest_of_config
from lattq.llm.run.inputs import InputRounding, read_input_block

__all__ = ["METHOD", "LattqConfig", "block_of"]

METHOD = "lattq"
FORMAT, ROUNDED = 1, 2  # versions; the second where inputs are rounded, which older releases would not do


class LattqConfig(QuantizationConfigMixin):
    """What `config.json` says about the quantized layers.

    Parameters
    ----------
    modules : name of each quantized matrix to its shape, "rows x columns" without spaces; with a "T" behind it for an
        expert whose slice of a parameter is inputs × outputs
    run : hexadecimal name of the conversion, to which the payloads are bound
    digest : of all tensors in the weight files, hexadecimal
    config_digest : of what else `config.json` says, this block included
    format_version : of the directory: 2 where inputs are rounded, else 1
    input_activations : how the inputs of every layer are rounded (see `input_block`), None where they are not
    keep_payload : of a load alone, ``from_pretrained(..., quantization_config=LattqConfig(keep_payload=True))``:
        whether payloads stay in memory beside the decoded weights. They are left in the files otherwise, and read
        again when the model is saved or cast, or learns

    Raises
    ------
    DamagedFileError : for a version, a list of layers, a shape or a rounding that this release cannot read
    InvalidInputError : if `keep_payload` is no truth value

    Examples
    --------
    >>> LattqConfig({"model.layers.0.mlp.up_proj": "576x256"}).shapes()
    {'model.layers.0.mlp.up_proj': (576, 256)}
    """

    quant_method: Any

    def __init__(
        self,
        modules: Any = None,  # whatever a file says
        run: Any = "",
        digest: Any = "",
        config_digest: Any = "",
        format_version: Any = None,
        input_activations: Any = None,
        keep_payload: Any = False,
        **others: Any,
    ) -> None:
        self.quant_method = METHOD
        self.keep_payload = as_flag("keep_payload", keep_payload)
        wanted = FORMAT if input_activations is None else ROUNDED
        if format_version not in (None, wanted):
            msg = (
                f"format version {format_version!r}; this lattq reads version {FORMAT}, and {ROUNDED} where inputs "
                "are rounded: use the release that wrote it"
            )
            raise DamagedFileError(msg)
        self.format_version = wanted
        modules = {} if modules is None else modules
        if not isinstance(modules, dict):
            msg = f"`modules` in config.json is {str(modules)[:40]!r}; expected layers and their shapes"
            raise DamagedFileError(msg)
        self.modules = dict(modules)
        self.run, self.digest, self.config_digest = run, digest, config_digest
        if input_activations is not None:
            self.input_activations = input_activations
        for key, value in others.items():
            if key != "quant_method":
                setattr(self, key, value)
        self.shapes()
        self.inputs()

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` says; options of a load are not among it."""
        found = super().to_dict()
        del found["keep_payload"]
        return found

    def get_loading_attributes(self) -> dict[str, Any]:
        """Options of a load."""
        return {"keep_payload": self.keep_payload}

    def inputs(self) -> dict[str, InputRounding]:
        """How the inputs of each layer are rounded; nothing where they are not."""
        return read_input_block(getattr(self, "input_activations", None), self.modules)

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each quantized layer."""
        found = {}
        for name, text in self.modules.items():
            rows, _, columns = str(text).removesuffix("T").partition("x")
            if not (rows.isdecimal() and columns.isdecimal()):
                msg = f"`modules` in config.json gives {name} the shape {text!r}; expected rows x columns, as 576x256"
                raise DamagedFileError(msg)
            found[name] = (int(rows), int(columns))
        return found


def block_of(config: Mapping[str, Any], directory: Any) -> LattqConfig:
    """The block `quantization_config` of a `config.json`.

    Raises
    ------
    InvalidInputError : if there is none of lattq, or it names no layer
    DamagedFileError : if the config is not the one that was written
    """
    block = config.get("quantization_config")
    found = LattqConfig(**block) if isinstance(block, dict) and block.get("quant_method") == METHOD else LattqConfig()
    if not found.modules:
        msg = f"{directory} holds no quantized layers of lattq; quantize a model first, with `lattq quantize`"
        raise InvalidInputError(msg)
    if found.config_digest != digest_of_config(config):
        msg = (
            f"config.json of {directory} is not the one that was written: a value of the model or the list of layers "
            "is changed; fetch it again, and change models where they are loaded"
        )
        raise DamagedFileError(msg)
    return found
