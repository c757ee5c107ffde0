"""Observers of progress: a bar for each stage on a terminal, lines of JSON for programs and logs."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from lattq.errors import InvalidInputError
from lattq.progress import Observer, Several, Stage

__all__ = ["Bar", "JsonLines", "observed"]


class Bar:
    """A line on the terminal for each stage at work, indented as they lie in each other."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[Stage, TaskID] = {}

    def begin(self, stage: Stage) -> None:
        """Add a line."""
        self.tasks[stage] = self.bars.add_task(_label(stage), total=stage.total)

    def advance(self, stage: Stage, what: str) -> None:
        """Move its bar and name the step."""
        self.bars.update(self.tasks[stage], completed=stage.done, description=f"{_label(stage)} {what}".rstrip())

    def end(self, stage: Stage) -> None:
        """Take the line away."""
        self.bars.remove_task(self.tasks.pop(stage))


class JsonLines:
    """One line of JSON for each event: event, path of the stage, done, total, seconds, and the step's name.

    >>> import io
    >>> stream = io.StringIO()
    >>> with Stage("layers", 1, observer=JsonLines(stream)) as stage:
    ...     stage.advance("q")
    >>> print(stream.getvalue(), end="")
    {"event": "begin", "stage": ["layers"], "done": 0, "total": 1, "seconds": 0.0}
    {"event": "advance", "stage": ["layers"], "done": 1, "total": 1, "seconds": 0..., "what": "q"}
    {"event": "end", "stage": ["layers"], "done": 1, "total": 1, "seconds": 0...}
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def begin(self, stage: Stage) -> None:
        """A line."""
        self._write("begin", stage)

    def advance(self, stage: Stage, what: str) -> None:
        """A line with the name of the step."""
        self._write("advance", stage, what=what)

    def end(self, stage: Stage) -> None:
        """A line."""
        self._write("end", stage)

    def _write(self, event: str, stage: Stage, **more: Any) -> None:
        seconds = round(stage.seconds, 3)
        line = {"event": event, "stage": stage.path, "done": stage.done, "total": stage.total, "seconds": seconds}
        self.stream.write(json.dumps(line | more) + "\n")
        self.stream.flush()


@contextlib.contextmanager
def observed(name: str, *, as_json: bool, log: Path | None = None, total: int | None = None) -> Iterator[Stage]:
    """The root stage of a command: bars on a terminal or, with `--json`, lines on stderr; and lines in a log file."""
    with contextlib.ExitStack() as stack:
        observers: list[Observer] = []
        console = Console(stderr=True)
        if as_json:
            observers.append(JsonLines(typer.get_text_stream("stderr")))
        elif console.is_terminal:
            text = TextColumn("{task.description}", markup=False)
            columns = (SpinnerColumn(), BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), text)
            observers.append(Bar(stack.enter_context(Progress(*columns, console=console, transient=True))))
        if log is not None:
            try:
                stream = stack.enter_context(log.open("a", encoding="utf-8"))
            except OSError as error:
                msg = f"cannot write `--log` = {log} ({error}); choose a file in a folder you may write to"
                raise InvalidInputError(msg) from None
            observers.append(JsonLines(stream))
        yield stack.enter_context(Stage(name, total, observer=Several(tuple(observers))))


def _label(stage: Stage) -> str:
    return "  " * (len(stage.path) - 1) + stage.name
