"""Model directories of lattq load through `transformers`: the quantizer plug-in."""

from typing import Any

import torch
import transformers.quantizers.auto as auto
from torch import nn
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run.layers import LattqLinear, replace

__all__ = ["LattqConfig", "LattqHfQuantizer", "attach", "register"]

METHOD = "lattq"
FORMAT = 1


class LattqConfig(QuantizationConfigMixin):
    """What `config.json` says about the quantized layers.

    Parameters
    ----------
    modules : name of each quantized layer to its shape, "rows x columns" without spaces
    format_version : of the directory

    Raises
    ------
    DamagedFileError : for a version or a shape this release cannot read

    Examples
    --------
    >>> LattqConfig({"model.layers.0.mlp.up_proj": "576x256"}).shapes()
    {'model.layers.0.mlp.up_proj': (576, 256)}
    """

    quant_method: Any

    def __init__(self, modules: dict[str, str] | None = None, format_version: int = FORMAT, **others: Any) -> None:
        self.quant_method = METHOD
        if format_version != FORMAT:
            msg = f"format version {format_version}; this lattq reads version {FORMAT}: use the release that wrote it"
            raise DamagedFileError(msg)
        self.format_version = format_version
        self.modules = dict(modules or {})
        for key, value in others.items():
            if key != "quant_method":
                setattr(self, key, value)
        self.shapes()

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each quantized layer."""
        found = {}
        for name, text in self.modules.items():
            rows, _, columns = str(text).partition("x")
            if not (rows.isdecimal() and columns.isdecimal()):
                msg = f"`modules` in config.json gives {name} the shape {text!r}; expected rows x columns, as 576x256"
                raise DamagedFileError(msg)
            found[name] = (int(rows), int(columns))
        return found


class LattqHfQuantizer(HfQuantizer):
    """Builds `LattqLinear` layers in the skeleton and checks their payloads once they are loaded.

    Examples
    --------
    >>> LattqHfQuantizer(LattqConfig()).is_serializable()
    True
    """

    requires_calibration = True
    quantization_config: LattqConfig

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        """Payloads have any length: for them the loader must not compare shapes."""
        module, _, name = param_name.rpartition(".")
        return name == "weight" and isinstance(model.get_submodule(module), LattqLinear)

    def is_serializable(self, **kwargs: Any) -> bool:
        """Payloads are saved as they are."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Weights are frozen."""
        return False

    def get_state_dict_and_metadata(self, model: Any, **kwargs: Any) -> tuple[None, dict[str, str]]:
        """The state dict as it is, and the version for the header of the file."""
        return None, {}

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        modules = {}
        for name, (rows, columns) in self.quantization_config.shapes().items():
            found = _resolve(model, name)
            if found is None:  # a head or pooler this class does not have
                continue
            linear = model.get_submodule(found)
            if not isinstance(linear, nn.Linear) or tuple(linear.weight.shape) != (rows, columns):
                msg = f"config.json says that {name} is a linear layer of {rows}x{columns}, the model has {linear}"
                raise DamagedFileError(msg)
            replace(model, found, LattqLinear(rows, columns, bias=linear.bias is not None))
            modules[found] = f"{rows}x{columns}"
        if self.quantization_config.modules and not modules:
            msg = f"{type(model).__name__} has none of the quantized layers; load the architecture in config.json"
            raise InvalidInputError(msg)
        self.quantization_config.modules = modules

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        for name in self.quantization_config.modules:
            try:
                model.get_submodule(name).check()
            except DamagedFileError as error:
                msg = f"layer {name}: {error}"
                raise DamagedFileError(msg) from None

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        for name, module in list(model.named_modules()):
            if isinstance(module, LattqLinear):
                replace(model, name, module.to_linear(dtype or torch.float32))
        return model


def _resolve(model: Any, name: str) -> str | None:
    """Find `name` in the model, whether it or the saved one wraps the other in its base model's prefix."""
    prefix = f"{model.base_model_prefix}."
    names = {found for found, _ in model.named_modules()}
    for candidate in (name, name.removeprefix(prefix), prefix + name):
        if candidate in names:
            return candidate
    return None


def attach(model: Any, payloads: dict[str, bytes]) -> None:
    """Replace linear layers of `model` by their payloads and make it a model that `save_pretrained` can write.

    Examples
    --------
    >>> from lattq.llm import embedded_model
    >>> from transformers import AutoModelForCausalLM
    >>> model = AutoModelForCausalLM.from_pretrained(embedded_model())
    >>> attach(model, {})
    >>> model.is_quantized
    True
    """
    config = LattqConfig()
    for name, payload in payloads.items():
        layer = LattqLinear.from_linear(model.get_submodule(name), payload)
        replace(model, name, layer)
        config.modules[name] = f"{layer.out_features}x{layer.in_features}"
    model.config.quantization_config = config
    model.hf_quantizer = LattqHfQuantizer(config, pre_quantized=True)
    model.is_quantized, model.quantization_method = True, METHOD


def register() -> None:
    """Make `transformers` know the method "lattq"; again is harmless.

    >>> register()
    """
    if METHOD not in auto.AUTO_QUANTIZATION_CONFIG_MAPPING:
        register_quantization_config(METHOD)(LattqConfig)
    if METHOD not in auto.AUTO_QUANTIZER_MAPPING:
        register_quantizer(METHOD)(LattqHfQuantizer)
