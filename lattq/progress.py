"""Progress: a tree of stages, and observers that are told when one begins, advances and ends."""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

__all__ = ["Observer", "Stage"]

T = TypeVar("T")


@runtime_checkable
class Observer(Protocol):
    """What is told of stages: a bar on a screen, a log in a file, lines of JSON."""

    def begin(self, stage: "Stage") -> None:
        """A stage has begun; its parent is known, and how many steps it will take if anyone knows."""
        ...

    def advance(self, stage: "Stage", what: str) -> None:
        """A step of the stage is done: `stage.done` counts it, and `what` names it."""
        ...

    def end(self, stage: "Stage") -> None:
        """The stage is over, finished or not; `stage.seconds` is how long it took."""
        ...


@dataclasses.dataclass(eq=False)
class Stage:
    """A piece of work, alone or inside another, as a context manager.

    Attributes
    ----------
    name : what happens
    total : how many steps there will be; None if nobody knows
    parent : the stage that this one is part of
    observer : who is told; nobody if None
    done : steps so far

    Examples
    --------
    >>> class Printer:
    ...     def begin(self, stage):
    ...         print("begin", *stage.path)
    ...     def advance(self, stage, what):
    ...         print(what, stage.done, "of", stage.total)
    ...     def end(self, stage):
    ...         print("end", *stage.path)
    >>> with Stage("model", observer=Printer()) as model:
    ...     with model.stage("layers", 2) as layers:
    ...         for name in layers.over(["q", "k"]):
    ...             pass
    begin model
    begin model layers
    q 1 of 2
    k 2 of 2
    end model layers
    end model
    """

    name: str
    total: int | None = None
    parent: "Stage | None" = None
    observer: Observer | None = None
    done: int = 0
    _start: float = dataclasses.field(default=0.0, repr=False)

    def __enter__(self) -> "Stage":
        self._start = time.perf_counter()
        if self.observer is not None:
            self.observer.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self.observer is not None:
            self.observer.end(self)

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.perf_counter() - self._start

    @property
    def path(self) -> tuple[str, ...]:
        """Names from the root to this stage."""
        return (*(self.parent.path if self.parent else ()), self.name)

    def stage(self, name: str, total: int | None = None) -> "Stage":
        """A stage inside this one, with the same observer."""
        return Stage(name, total, self, self.observer)

    def advance(self, what: str = "") -> None:
        """One more step is done."""
        self.done += 1
        if self.observer is not None:
            self.observer.advance(self, what)

    def over(self, steps: Iterable[T]) -> Iterator[T]:
        """The steps, each counted once the loop asks for the next; texts name themselves."""
        for step in steps:
            yield step
            self.advance(step if isinstance(step, str) else "")


@dataclasses.dataclass(frozen=True)
class Several:
    """Several observers as one.

    >>> with Stage("work", observer=Several(())) as stage:
    ...     stage.advance()
    """

    observers: tuple[Observer, ...]

    def begin(self, stage: Stage) -> None:
        """Tell all."""
        for one in self.observers:
            one.begin(stage)

    def advance(self, stage: Stage, what: str) -> None:
        """Tell all."""
        for one in self.observers:
            one.advance(stage, what)

    def end(self, stage: Stage) -> None:
        """Tell all."""
        for one in self.observers:
            one.end(stage)


def stage(name: str, total: int | None = None, *, inside: Stage | Observer | None = None) -> Stage:
    """A stage inside another one, or the root of a tree with an observer, or with none.

    >>> stage("layers", inside=Stage("model")).path
    ('model', 'layers')
    """
    return inside.stage(name, total) if isinstance(inside, Stage) else Stage(name, total, observer=inside)
