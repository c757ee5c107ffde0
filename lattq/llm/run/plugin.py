"""Model directories of lattq load through `transformers`: the quantizer plug-in."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers.quantizers.auto as auto
from transformers.core_model_loading import WeightConverter
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run.layers import LattqLinear
from lattq.llm.source.matrices import Matrix, matrices

__all__ = ["LattqConfig", "LattqHfQuantizer", "attach", "register"]

METHOD = "lattq"
FORMAT = 1


class LattqConfig(QuantizationConfigMixin):
    """What `config.json` says about the quantized layers.

    Parameters
    ----------
    modules : name of each quantized matrix to its shape, "rows x columns" without spaces; with a "T" behind it for an
        expert whose slice of a parameter is inputs × outputs
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
            rows, _, columns = str(text).removesuffix("T").partition("x")
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

    def __init__(self, quantization_config: LattqConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.matrices: dict[str, Matrix] = {}

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

    def update_weight_conversions(self, weight_conversions: list[Any], model: Any) -> list[Any]:
        """Leave out conversions that would stack or cut payloads: what they touch is stored as the model has it."""
        return without_converters(weight_conversions, self.quantization_config.modules)

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        modules, known = {}, matrices(model)
        for name, (rows, columns) in self.quantization_config.shapes().items():
            found = _resolve(model, name, known)
            if found is None:
                if _resolve(model, name, dict(model.named_modules())) is not None:
                    msg = f"config.json says that {name} is a linear layer, the model has another module there"
                    raise DamagedFileError(msg)
                continue  # a head or pooler this class does not have
            matrix, text = known[found], self.quantization_config.modules[name]
            if matrix.routed:
                matrix.transposed = text.endswith("T")
            if matrix.shape != (rows, columns):
                wanted = f"{rows}x{columns}"
                msg = f"config.json says that {name} is a linear layer of {wanted}, the model has {matrix.shape}"
                raise DamagedFileError(msg)
            modules[found] = text
            self.matrices[found] = matrix
        for name, matrix in self.matrices.items():
            missing = [one for one in matrix.siblings if one not in modules]
            if missing:
                msg = f"config.json names {name} and not {missing[0]}; experts of one parameter are stored together"
                raise DamagedFileError(msg)
        if self.quantization_config.modules and not modules:
            msg = f"{type(model).__name__} has none of the quantized layers; load the architecture in config.json"
            raise InvalidInputError(msg)
        place(model, self.matrices, dict.fromkeys(modules, b""))
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
        decoded = {name: model.get_submodule(name).dequantize(dtype or torch.float32) for name in self.matrices}
        for name, weight in decoded.items():
            self.matrices[name].restore(model, weight)
        return model


def _resolve(model: Any, name: str, names: Mapping[str, Any]) -> str | None:
    """Find `name` among some, whether it or the saved one wraps the other in its base model's prefix."""
    prefix = f"{model.base_model_prefix}."
    return next((one for one in (name, name.removeprefix(prefix), prefix + name) if one in names), None)


def without_converters(conversions: list[Any], names: Mapping[str, Any]) -> list[Any]:
    """The conversions of a checkpoint that do no more than rename payloads."""

    def touches(conversion: Any) -> bool:
        if not isinstance(conversion, WeightConverter):
            return False
        written = conversion.reverse_transform()
        return any(written.rename_source_key(f"{name}.weight")[1] is not None for name in names)

    return [conversion for conversion in conversions if not touches(conversion)]


def place(model: Any, found: Mapping[str, Matrix], payloads: Mapping[str, bytes]) -> None:
    """Put layers with payloads where the matrices of a model are."""
    for name, payload in payloads.items():
        matrix = found[name]
        matrix.place(model, LattqLinear(*matrix.shape, payload=payload).to(matrix.parameter.device))


def attach(model: Any, found: Mapping[str, Matrix], payloads: Mapping[str, bytes]) -> None:
    """Replace matrices of `model` by their payloads and make it a model that `save_pretrained` can write.

    Examples
    --------
    >>> from lattq.llm import embedded_model
    >>> from transformers import AutoModelForCausalLM
    >>> model = AutoModelForCausalLM.from_pretrained(embedded_model())
    >>> attach(model, {}, {})
    >>> model.is_quantized
    True
    """
    config = LattqConfig({name: found[name].text for name in payloads})
    place(model, found, payloads)
    model.config.quantization_config = config
    model.hf_quantizer = LattqHfQuantizer(config, pre_quantized=True)
    model.hf_quantizer.matrices = {name: found[name] for name in payloads}
    model._weight_conversions = without_converters(model._weight_conversions, config.modules)
    model.is_quantized, model.quantization_method = True, METHOD


def register() -> None:
    """Make `transformers` know the method "lattq"; again is harmless.

    >>> register()
    """
    if METHOD not in auto.AUTO_QUANTIZATION_CONFIG_MAPPING:
        register_quantization_config(METHOD)(LattqConfig)
    if METHOD not in auto.AUTO_QUANTIZER_MAPPING:
        register_quantizer(METHOD)(LattqHfQuantizer)
