"""The application: its commands and its entry point."""

import importlib.metadata
from typing import Annotated

import typer

from lattq.cli.demo import demo
from lattq.cli.export import export
from lattq.cli.inspection import inspect
from lattq.cli.limits import bounds
from lattq.cli.models import evaluate, quantize
from lattq.cli.refine import refine
from lattq.cli.statistics import measure, statistics

__all__ = ["app", "main"]

app = typer.Typer(
    name="lattq",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"lattq {importlib.metadata.version('lattq')}")
        raise typer.Exit
    return wanted


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Quantize language models at rates close to the information-theoretic limit, and say how close."""


app.command("quantize")(quantize)
app.command("measure")(measure)
app.add_typer(statistics, name="statistics")
app.command("refine")(refine)
app.command("eval")(evaluate)
app.command("inspect")(inspect)
app.command("bounds")(bounds)
app.command("export")(export)
app.command("demo")(demo)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for an error, 2 for wrong usage, 130 for an interrupt.

    Parameters
    ----------
    arguments : what follows the word `lattq`; those of the process unless given

    Examples
    --------
    >>> main(["bounds", "--rates", "0"])
    1
    """
    try:
        app(args=arguments, prog_name="lattq")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
