"""Model directories of lattq load through `transformers`: the quantizer plug-in."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers.quantizers.auto as auto
from torch import Tensor
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_utils import remove_tied_weights_from_state_dict
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer

from lattq.errors import DamagedFileError, InvalidInputError
from lattq.llm.run.config import METHOD, LattqConfig, block_of
from lattq.llm.run.decoding import LoadingBar, decode_weights
from lattq.llm.run.digests import bind, context, digest_of_config, digest_of_state, verified_at_load
from lattq.llm.run.directory import check_places, places, verify
from lattq.llm.run.encoded import ENCODED, Encoded, Place
from lattq.llm.run.inputs import InputRounding, input_block
from lattq.llm.run.layers import LattqLinear
from lattq.llm.source.checkpoint import read_config
from lattq.llm.source.decoded import Decoded
from lattq.llm.source.matrices import Matrix, matrices

__all__ = ["LattqHfQuantizer", "attach", "register", "saved_tensors"]


class LattqHfQuantizer(HfQuantizer):
    """Builds `LattqLinear` layers in the skeleton and checks that all tensors are those that were written.

    In the files a tensor has the name that it has in the model, whatever other names `transformers` knows for it.

    Examples
    --------
    >>> LattqHfQuantizer(LattqConfig()).is_serializable()
    True
    """

    requires_calibration = True
    quantization_config: LattqConfig

    def __init__(self, quantization_config: LattqConfig, **options: Any) -> None:
        super().__init__(quantization_config, **options)
        self.matrices: dict[str, Matrix] = {}  # what the layers with payloads stand for, by name in the model
        self.written: dict[str, str] = {}  # name in the directory of each layer of the model
        self.carried: dict[str, Tensor] = {}  # tensors of the source that the model has no place for
        self.places: dict[str, Place] = {}  # where payloads lie, by name in the directory

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        """Payloads have any length: for them the loader must not compare shapes."""
        module, _, name = param_name.rpartition(".")
        return name == ENCODED and isinstance(model.get_submodule(module), Encoded)

    def is_serializable(self, **kwargs: Any) -> bool:
        """Payloads are saved as they are."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Weights are frozen."""
        return False

    def update_weight_conversions(self, weight_conversions: list[Any], *args: Any) -> list[Any]:
        """The files hold the names of the model, and payloads where a program without lattq looks for weights."""
        return [_Payloads(self.written)]

    def get_state_dict_and_metadata(self, model: Any, **kwargs: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors as they are written, payloads bound to their layer; `config.json` gets their digest."""
        config = self.quantization_config
        state = saved_tensors(model)
        for name in config.modules:
            payload = bind(state.pop(f"{name}.{ENCODED}").cpu().numpy().tobytes(), context(config.run, name))
            state[f"{name}.weight"] = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
        state |= self.carried
        config.digest = digest_of_state(state)
        model.config.quantization_config = config
        model.config.architectures = [type(model).__name__]  # as `save_pretrained` will
        config.config_digest = digest_of_config(json.loads(model.config.to_json_string()))
        return state, {}

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        config, modules, known = self.quantization_config, {}, matrices(model)
        stated, inputs = config.inputs(), {}
        files = [Path(file) for file in kwargs.get("checkpoint_files") or ()]
        check_places(files, model.name_or_path)
        if files:
            block_of(read_config(files[0].parent), files[0].parent)
        for name, (rows, columns) in config.shapes().items():
            found = _resolve(model, name, known)
            if found is None:
                if _resolve(model, name, dict(model.named_modules())) is not None:
                    msg = f"config.json says that {name} is a linear layer, the model has another module there"
                    raise DamagedFileError(msg)
                if type(model).__name__ in (model.config.architectures or ()):
                    msg = f"config.json lists the layer {name}; a {type(model).__name__} of its sizes has none"
                    raise DamagedFileError(msg)
                continue  # a head or pooler this class does not have
            matrix, text = known[found], config.modules[name]
            if matrix.routed:
                matrix.transposed = text.endswith("T")
            if matrix.shape != (rows, columns):
                wanted = f"{rows}x{columns}"
                msg = f"config.json says that {name} is a linear layer of {wanted}, the model has {matrix.shape}"
                raise DamagedFileError(msg)
            modules[found] = text
            if name in stated:
                if matrix.routed:
                    msg = f"config.json rounds the inputs of {name}, an expert; no release writes that"
                    raise DamagedFileError(msg)
                inputs[found] = stated[name]
            self.matrices[found], self.written[found] = matrix, name
        for name, matrix in self.matrices.items():
            missing = [one for one in matrix.siblings if one not in modules]
            if missing:
                msg = f"config.json names {name} and not {missing[0]}; experts of one parameter are stored together"
                raise DamagedFileError(msg)
        if config.modules and not modules:
            msg = f"{type(model).__name__} has none of the quantized layers; load the architecture in config.json"
            raise InvalidInputError(msg)
        place(model, self.matrices, dict.fromkeys(modules, b""), inputs)
        for pattern, dtype in model._get_dtype_plan(model.dtype).items():
            for name in (name for name in modules if re.search(pattern.replace("*", ".*"), f"{name}.weight")):
                layer = model.get_submodule(name)
                if isinstance(layer, Decoded):
                    layer.like = layer.like.to(dtype)
                    layer.forget()
        for module in model.modules():
            if isinstance(module, Decoded):
                module.expect_place()
        self.places = places(config, files)
        if files and verified_at_load():
            verify(config, files)
        config.modules = modules
        if inputs:
            config.input_activations = input_block(inputs)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        config = self.quantization_config
        for name, written in self.written.items():
            bound, place = context(config.run, written), self.places.get(written)
            model.get_submodule(name).expect(bound, place, keeps=config.keep_payload)
        if verified_at_load():
            decode_weights(model, self.written, LoadingBar())
        else:
            for module in model.modules():
                if isinstance(module, Decoded):
                    module.forget()

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        model._weight_conversions = None  # dense files have the names that `transformers` gives them
        decoded = {name: dense(model.get_submodule(name), dtype or torch.float32) for name in self.matrices}
        for name, weight in decoded.items():
            self.matrices[name].restore(model, weight)
        return model


class _Payloads(WeightRenaming):
    """Names in the files of the tensors that hold payloads to those in the model."""

    __slots__ = ("places",)

    def __init__(self, written: Mapping[str, str]) -> None:
        super().__init__("weight", ENCODED)
        self.places = {f"{there}.weight": f"{name}.{ENCODED}" for name, there in written.items()}

    def rename_source_key(self, source_key: str) -> tuple[str, str | None]:
        """The name in the model of a tensor in the files."""
        return self.places.get(source_key, source_key), None


def _resolve(model: Any, name: str, names: Mapping[str, Any]) -> str | None:
    """Find `name` among some, whether it or the saved one wraps the other in its base model's prefix."""
    prefix = f"{model.base_model_prefix}."
    return next((one for one in (name, name.removeprefix(prefix), prefix + name) if one in names), None)


def dense(layer: Encoded, dtype: torch.dtype) -> Tensor:
    """The weight of a layer, decoded already if it is in this type."""
    found = layer.decoded() if isinstance(layer, LattqLinear) and layer.inputs is None else None
    return found.detach() if found is not None and found.dtype == dtype else layer.dequantize(dtype)


def place(
    model: Any, found: Mapping[str, Matrix], payloads: Mapping[str, bytes], inputs: Mapping[str, InputRounding]
) -> None:
    """Put layers with payloads, and perhaps with rounded inputs, where the matrices of a model are."""
    for name, payload in payloads.items():
        matrix = found[name]
        if matrix.routed:
            layer = Encoded(*matrix.shape, payload=payload)
        else:
            dtype, rounding = matrix.parameter.dtype, inputs.get(name)
            layer = LattqLinear(*matrix.shape, payload=payload, dtype=dtype, inputs=rounding)
        matrix.place(model, layer.to(matrix.parameter.device))


def saved_tensors(model: Any) -> dict[str, Tensor]:
    """What `save_pretrained` writes of a model, by name: tied tensors once, none that the model's class leaves out."""
    left_out = set(model._keys_to_ignore_on_save or ())
    state = {key: value for key, value in model.state_dict().items() if key not in left_out}
    return remove_tied_weights_from_state_dict(state, model)


def attach(
    model: Any,
    found: Mapping[str, Matrix],
    payloads: Mapping[str, bytes],
    run: str = "",
    carried: Mapping[str, Tensor] | None = None,
    inputs: Mapping[str, InputRounding] | None = None,
) -> None:
    """Replace matrices of `model` by their payloads and make it a model that `save_pretrained` can write.

    Parameters
    ----------
    found : matrices by name
    payloads : of those that are replaced
    run : name of the conversion, to which they are bound in the files
    carried : tensors that the model has no place for, written beside its own
    inputs : how those of all replaced matrices are rounded while the model runs; None for not at all

    Examples
    --------
    >>> from lattq.llm import embedded_model
    >>> from transformers import AutoModelForCausalLM
    >>> model = AutoModelForCausalLM.from_pretrained(embedded_model())
    >>> attach(model, {}, {})
    >>> model.is_quantized
    True
    """
    rounded = dict(inputs or {})
    shapes = {name: found[name].text for name in payloads}
    config = LattqConfig(shapes, run=run, input_activations=input_block(rounded))
    place(model, found, payloads, rounded)
    model.config.quantization_config = config
    model.hf_quantizer = LattqHfQuantizer(config, pre_quantized=True)
    model.hf_quantizer.matrices = {name: found[name] for name in payloads}
    model.hf_quantizer.carried = dict(carried or {})
    model._weight_conversions = []  # the names in the files are those of the model
    model.is_quantized, model.quantization_method = True, METHOD


def register() -> None:
    """Make `transformers` know the method "lattq"; again is harmless.

    >>> register()
    """
    if METHOD not in auto.AUTO_QUANTIZATION_CONFIG_MAPPING:
        register_quantization_config(METHOD)(LattqConfig)
    if METHOD not in auto.AUTO_QUANTIZER_MAPPING:
        register_quantizer(METHOD)(LattqHfQuantizer)
    if LattqConfig not in auto.LOADING_ATTRIBUTES_CONFIG_TYPES:  # those whose options a load may give
        auto.LOADING_ATTRIBUTES_CONFIG_TYPES += (LattqConfig,)
