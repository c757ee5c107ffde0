"""The block of lattq in `config.json`: which layers are quantized, and what binds them to the files."""

from collections.abc import Mapping
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run.digests import digest_of_config

__all__ = ["METHOD", "LattqConfig", "block_of"]

METHOD = "lattq"
FORMAT = 1


class LattqConfig(QuantizationConfigMixin):
    """What `config.json` says about the quantized layers.

    Parameters
    ----------
    modules : name of each quantized matrix to its shape, "rows x columns" without spaces; with a "T" behind it for an
        expert whose slice of a parameter is inputs × outputs
    run : hexadecimal name of the conversion, to which the payloads are bound
    digest : of all tensors in the weight files, hexadecimal
    config_digest : of what else `config.json` says, this block included
    format_version : of the directory

    Raises
    ------
    DamagedFileError : for a version, a list of layers or a shape that this release cannot read

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
        format_version: Any = FORMAT,
        **others: Any,
    ) -> None:
        self.quant_method = METHOD
        if format_version != FORMAT:
            msg = f"format version {format_version!r}; this lattq reads version {FORMAT}: use the release that wrote it"
            raise DamagedFileError(msg)
        self.format_version = format_version
        modules = {} if modules is None else modules
        if not isinstance(modules, dict):
            msg = f"`modules` in config.json is {str(modules)[:40]!r}; expected layers and their shapes"
            raise DamagedFileError(msg)
        self.modules = dict(modules)
        self.run, self.digest, self.config_digest = run, digest, config_digest
        for key, value in others.items():
            if key != "quant_method":
                setattr(self, key, value)
        self.shapes()

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
