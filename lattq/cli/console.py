"""What the commands share: errors in one line on stderr, tables and JSON on stdout."""

import functools
import importlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError

from lattq.errors import InvalidInputError, LattqError

__all__ = [
    "AsJson",
    "Debug",
    "Log",
    "command",
    "dense_words",
    "inputs_words",
    "models",
    "parse_rates",
    "print_json",
    "print_table",
    "read_text",
    "replaced",
]

INTERRUPTED = 130
WIDTH_OF_FILES = 160  # columns of a table that goes to a file or a pipe
MODEL_LIBRARIES = ("accelerate", "tokenizers", "torch", "transformers")

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON value on stdout, errors too, and progress as JSON on stderr.")
]
Log = Annotated[Path | None, typer.Option(help="File that progress is appended to, a line of JSON for each step.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command its exits: 1 and one line for an error, 130 for an interrupt.

    The function has the keyword arguments `as_json` and `debug`.
    """

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            _complain(_interruption(kwargs.get("out")), kwargs["as_json"])
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise
        except (LattqError, OSError, SafetensorError) as error:
            if kwargs["debug"]:
                raise
            text = str(error) or type(error).__name__
            if isinstance(error, SafetensorError):
                text = f"a weight file is truncated or damaged ({text}); fetch it again"
            _complain(text, kwargs["as_json"])
            raise typer.Exit(1) from None

    return guarded


def _interruption(out: Any) -> str:
    partial = None if out is None else Path(f"{out}.partial")
    if partial is not None and partial.exists():
        return f"interrupted; {partial} keeps what is finished: repeat the command to resume, or delete that folder"
    return "interrupted; repeat the command to start again"


def _complain(text: str, as_json: bool) -> None:
    line = " ".join(text.split())
    if as_json:
        print_json({"error": line})
    else:
        typer.echo(f"lattq: {line}", err=True)


def models() -> Any:
    """Import `lattq.llm`, with `transformers` quiet; say how to install what it needs if that is missing."""
    try:
        importlib.import_module("torch")  # the others need it
        llm = importlib.import_module("lattq.llm")
        logging = importlib.import_module("transformers").utils.logging
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library not in MODEL_LIBRARIES:
            raise
        msg = f"this command needs {library}: pip install lattq[llm]"
        raise LattqError(msg) from None
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return llm


def print_json(value: Any) -> None:
    """Print strict JSON: numbers that are not finite become null."""
    typer.echo(json.dumps(_strict(value), indent=1, allow_nan=False))


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None = None) -> None:
    """Print a table on stdout; the first column is left-aligned, the others right."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_OF_FILES)
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def number(value: float | int | None, form: str = ".4f") -> str:
    """Format a number; a dash for None."""
    return "–" if value is None else format(value, form)


def parse_rates(text: str) -> list[float]:
    """Numbers between commas, in bits; raises `InvalidInputError` for anything else.

    >>> parse_rates("0.5, 2")
    [0.5, 2.0]
    """
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate <= 24 for rate in rates):
        msg = f"`--rates` is {text!r}; give numbers of bits above 0 and at most 24 between commas, as 2,3,4"
        raise InvalidInputError(msg)
    return rates


def read_text(path: Path) -> str:
    """Read a UTF-8 text file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it or give another file"
        raise InvalidInputError(msg) from None


def replaced(stored: int, weights: int, added: int) -> str:
    """What a rate counts.

    >>> replaced(1000, 2000, 0)
    '1,000 bytes replace 2,000 weights'
    """
    more = f", and maps added {added:,} bytes of dense ones" if added else ""
    return f"{stored:,} bytes replace {weights:,} weights{more}"


def inputs_words(bits: int | None, operations: int) -> str:
    """A line about rounded inputs; nothing where they are as they come.

    >>> print(inputs_words(4, 1536), end="")
    inputs rounded to 4 bits, token by token; maps that stay take 1,536 operations for each
    """
    if bits is None:
        return ""
    return f"inputs rounded to {bits} bits, token by token; maps that stay take {operations:,} operations for each\n"


def dense_words(report: Any) -> str:
    """How much of the weight files is dense, why, and the largest tensor of each kind."""
    shares, parts = report.dense_shares(), []
    for why, share in shares.items():
        rows = [row for row in report.dense if row.why == why]
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        parts.append(f"{share:.1%} {why} ({rows[0].name}{more})")
    return f"of them dense {sum(shares.values()):.1%}: {', '.join(parts)}" if parts else "nothing dense"
