"""How a quantized model is refined, and what that did."""

import dataclasses

from lattq._options import as_count, as_flag, as_float, as_seed, normalize
from lattq.errors import InvalidInputError

__all__ = ["Distillation", "Epoch", "Refining"]


@dataclasses.dataclass(frozen=True)
class Refining:
    """How a quantized model learns.

    A number of size s, the root mean square of its array, learns at the rate ``reach · s``: with Adam that is about as
    far as a step moves it, whatever its gradient. After an epoch that made
    the score better by less than 0.5 %, and after a step that is not finite, training goes back to the best state and
    rates halve. It ends after more than `patience` of those, or after `epochs`.

    Parameters
    ----------
    epochs : passes over the windows that train, at most
    tokens : of a step, about
    reach : share of its size by which a number moves at a step
    held_out : of this many windows, 2 or more, one judges and does not train
    patience : how often rates halve before training ends
    embeddings : whether dense embeddings and a dense output layer learn too: they keep their type and bytes, and are
        worth more than all gains (theory 17.4), but training takes four copies of them in float32
    gains : whether rows without steps of their own get gains, and stored gains of columns learn. They take bytes, which
        beside embeddings are worth more in codes (theory 17.5)
    seed : of the order of windows

    Raises
    ------
    InvalidInputError : for numbers out of these ranges

    Examples
    --------
    >>> Refining(epochs=0)
    Traceback (most recent call last):
    lattq.errors.InvalidInputError: `epochs` is 0; use at least 1
    """

    epochs: int = 10
    tokens: int = 1024
    reach: float = 0.0025
    held_out: int = 8
    patience: int = 3
    embeddings: bool = True
    gains: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        normalize(self, as_float, "reach")
        normalize(self, as_flag, "embeddings", "gains")
        object.__setattr__(self, "seed", as_seed(self.seed))
        for name, least in (("epochs", 1), ("tokens", 1), ("held_out", 2), ("patience", 0)):
            object.__setattr__(self, name, as_count(name, getattr(self, name), least))
        if not 0 < self.reach < 1:
            msg = f"`reach` is {self.reach}; a number moves by a share of its size above 0 and below 1"
            raise InvalidInputError(msg)


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What held-out windows say of a state, rounded as files hold it.

    Attributes
    ----------
    divergence : mean KL from the dense model in nats; of embeddings, half their squared distance
    payload_bytes : of all layers
    score : divergence times 4^(bits per weight above those of the start): at equal slope, a bit is worth a factor of 4
    rejected : whether a step was not finite, and the epoch ended there
    """

    divergence: float
    payload_bytes: int
    score: float
    rejected: bool = False


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What training did.

    Attributes
    ----------
    start : before it
    end : of what is kept: no larger divergence than `start`, and no larger score
    best_epoch : after which it was found; 0 for before training
    epochs : all of them
    training, judging : windows

    Examples
    --------
    >>> plain = Epoch(0.02, 1000, 0.02)
    >>> Distillation(plain, plain, 0, (), 7, 1).ratio
    1.0
    """

    start: Epoch
    end: Epoch
    best_epoch: int
    epochs: tuple[Epoch, ...]
    training: int
    judging: int

    @property
    def ratio(self) -> float:
        """Divergence of the end over that of the start, at the bytes of the start."""
        return self.end.score / self.start.score if self.start.score else 1.0
