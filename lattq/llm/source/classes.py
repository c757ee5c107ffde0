"""The class of `transformers` that reads the tensors of a model directory, all of them."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import transformers
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto import modeling_auto

from lattq.errors import InvalidInputError

__all__ = ["Reading", "find_class", "named_class", "read_by", "unread_keys"]

SHOWN = 4


class Reading(NamedTuple):
    """How a class reads some tensors.

    Attributes
    ----------
    missing : names of the model that no tensor fills, tied ones excepted
    mismatched : name, shape in the files, shape in the model
    unread : names, as the model would have them, of tensors that it has no place for
    integers : keys of tensors without fractions where the model has real numbers
    beside : those of `unread` that belong to a layer of the model, such as scales of its weight
    """

    missing: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    unread: list[str]
    integers: list[str]
    beside: list[str]

    @property
    def fills(self) -> bool:
        """Whether the model computes what the tensors are for: nothing is random, or read as something else."""
        return not (self.missing or self.mismatched or self.integers or self.beside)

    def require(self, source: Any, kind: type) -> None:
        """Raise `InvalidInputError` unless the tensors fill the model."""
        if not self.fills:
            what = "give the model with dense weights" if self.integers or self.beside else "complete its files"
            msg = f"{self.faults(source, kind)}; {what}"
            raise InvalidInputError(msg)

    def faults(self, source: Any, kind: type) -> str:
        """What is wrong, in words; empty if nothing is."""
        found = []
        if self.missing:
            found.append(f"lacks {listed(self.missing)}")
        if self.mismatched:
            name, there, wanted = self.mismatched[0]
            more = f" and {len(self.mismatched) - 1} more" if len(self.mismatched) > 1 else ""
            found.append(f"holds {name} with shape {there} instead of {wanted}{more}")
        if self.integers:
            found.append(f"holds {listed(self.integers)} in integers, which are no weights without their scales")
        if self.beside:
            found.append(f"holds {listed(self.beside)}, which the class does not use in that layer")
        return f"{source} {' and '.join(found)}, for {kind.__name__}" if found else ""


def named_class(names: Any) -> Any:
    """The first class of `transformers` among `architectures` of a config."""
    for name in names if isinstance(names, list) else []:
        kind = getattr(transformers, str(name), None)
        if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel) and kind.config_class is not None:
            return kind
    return None


def find_class(config: Any, tensors: Mapping[str, Tensor]) -> type:
    """The class of a config's model type that reads every tensor and lacks none; heads come before bare models.

    Raises
    ------
    InvalidInputError : if there is none; it names the nearest
    """
    nearest: tuple[int, str] | None = None
    for kind in _candidates(config):
        found = read_by(kind, config, tensors)
        if found.fills and not found.unread:
            return kind
        distance = len(found.missing) + len(found.mismatched) + len(found.unread)
        lost = f"; it has no place for {listed(found.unread)}" if found.unread else ""
        if nearest is None or distance < nearest[0]:
            nearest = distance, (found.faults("the directory", kind) or kind.__name__) + lost
    msg = (
        f"`architectures` in config.json names no class of transformers, and none for {config.model_type} reads all "
        f"tensors; nearest: {nearest[1] if nearest else 'none'}. Name the class there, or complete the files"
    )
    raise InvalidInputError(msg)


def read_by(kind: type, config: Any, tensors: Mapping[str, Tensor]) -> Reading:
    """How `kind` reads tensors, found by loading them without their values."""

    partly: set[str] = set()  # made of several tensors, some of which are missing or misshapen
    missing: list[str] = []
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    integers: list[str] = []
    beside: list[str] = []

    def adjust(self: Any, info: Any) -> None:
        """Missing keys that the class declares computed are; a tensor that it ignores is unread all the same."""
        unread = set(info.unexpected_keys)
        kind._adjust_missing_and_unexpected_keys(self, info)  # type: ignore[attr-defined]
        state = self.state_dict()
        beside.extend(name for name in info.unexpected_keys if f"{name.rpartition('.')[0]}.weight" in state)
        integers.extend(_integers(self, state, tensors))
        info.unexpected_keys = unread
        partly.update([*info.conversion_errors, *(name for name, _, _ in info.mismatched_keys)])
        info.conversion_errors = {}  # which would raise, for a report that nobody sees
        for name in sorted(partly):
            for key, wanted in revert_weight_conversion(self, {name: state[name]}).items():
                there = next((one for other, one in tensors.items() if _same(other, key)), None)
                if there is None:
                    missing.append(key)
                elif there.shape != wanted.shape:
                    mismatched.append((key, tuple(there.shape), tuple(wanted.shape)))

    members = {"__module__": kind.__module__, "_adjust_missing_and_unexpected_keys": adjust}
    probe: Any = type(kind.__name__, (kind,), members)
    with quiet():
        _, info = probe.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    missing += info["missing_keys"] - partly if missing or mismatched else info["missing_keys"] | partly
    return Reading(sorted(missing), sorted(mismatched), sorted(info["unexpected_keys"]), integers, sorted(beside))


def _integers(model: Any, state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Keys of integer tensors that a model would take for real numbers."""
    found = [key for key, tensor in tensors.items() if not (tensor.is_floating_point() or tensor.is_complex())]
    if not found:
        return []
    real = [name for name, one in revert_weight_conversion(model, dict(state)).items() if one.is_floating_point()]
    return [key for key in found if any(_same(key, name) for name in real)]


def unread_keys(kind: type, config: Any, tensors: Mapping[str, Tensor]) -> list[str]:
    """Keys of the tensors that `kind` has no place for.

    Raises
    ------
    InvalidInputError : if the rest does not fill the model, the unread tensors cannot be told from the others, or two
        of the tensors are one in the model
    """
    prefix = getattr(kind, "base_model_prefix", "")
    for key in tensors:
        if f"{prefix}.{key}" in tensors:
            msg = f"the files hold both {key} and {prefix}.{key}, which are one tensor of {kind.__name__}; remove one"
            raise InvalidInputError(msg)
    found = read_by(kind, config, tensors)
    unread = [key for key in tensors if any(_same(key, name) for name in found.unread)]
    if unread:
        found = read_by(kind, config, {key: tensor for key, tensor in tensors.items() if key not in set(unread)})
    found.require("the model", kind)
    if found.unread:
        msg = f"{kind.__name__} has no place for {listed(found.unread)}, which would be lost; name another class"
        raise InvalidInputError(msg + " in `architectures` of config.json")
    return unread


def listed(names: list[str]) -> str:
    """A few names and how many more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """`transformers` reports and counts nothing: what it would say becomes an error of ours."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _same(key: str, name: str) -> bool:
    """Whether a key of a file is a name of the model, up to the prefix of its base model."""
    return key == name or key.endswith(f".{name}") or name.endswith(f".{key}")


def _candidates(config: Any) -> list[type]:
    found: list[type] = []
    autos = [value for name, value in vars(modeling_auto).items() if name.startswith("AutoModel")]
    first: list[Any] = [transformers.AutoModelForMaskedLM, transformers.AutoModelForCausalLM]
    if getattr(config, "is_decoder", False):  # the same tensors serve an encoder and a decoder
        first.reverse()
    for auto in [*first, *(one for one in autos if one is not transformers.AutoModel), transformers.AutoModel]:
        mapping = getattr(auto, "_model_mapping", {})
        kinds = mapping.get(type(config), ())
        found += kinds if isinstance(kinds, tuple) else [kinds]
    return list(dict.fromkeys(kind for kind in found if issubclass(kind, transformers.PreTrainedModel)))
