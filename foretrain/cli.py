"""The command line: parses, calls the function of the same name, and turns a user's mistake into a few lines and status 2.

Exit statuses: 0 done, 2 a mistake in what was given, 3 a prediction that does not fit memory, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from foretrain.cli_options import (
    CalibrateOptions,
    CollectiveOptions,
    ComparedJobOptions,
    CompareOptions,
    JobOptions,
    LayoutOptions,
    PowerOptions,
    RooflineOptions,
    ScalingOptions,
    SimulateOptions,
    TraceOptions,
    TrainerOptions,
    takes,
)
from foretrain.errors import ForetrainError, nearest

MISTAKE = 2
INTERRUPTED = 130

# rich would cost a tenth of a second at every start, and format our errors as boxes.
_PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False, "add_completion": False, "no_args_is_help": True}

app = typer.Typer(context_settings={"help_option_names": ["--help", "-h"]}, **_PLAIN)
plot = typer.Typer(help="Draw plots.", **_PLAIN)
validate = typer.Typer(help="Hold predictions against what was measured.", **_PLAIN)
app.add_typer(plot, name="plot")
app.add_typer(validate, name="validate")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, in SI units.")]


def _say_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it
    """Print the version and leave."""
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  # only here

        print(f"foretrain {version('foretrain')}")  # noqa: T201
        raise typer.Exit


@app.callback()
def everywhere(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)] = False
) -> None:
    """Predict what a training step of a large model costs: seconds, joules, dollars, grams of CO2, bytes."""


@app.command()
@takes(JobOptions, LayoutOptions, SimulateOptions)
def simulate(options: JobOptions, layout: LayoutOptions, only: SimulateOptions) -> None:
    """Predict one training step: time, energy, money and memory. Status 3 where it does not fit memory."""
    from foretrain.cli_simulate import run_simulate  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_simulate(options, layout, only))


@plot.command("scaling")
@takes(JobOptions, LayoutOptions, ScalingOptions)
def plot_scaling(options: JobOptions, layout: LayoutOptions, only: ScalingOptions) -> None:
    """Strong and weak scaling over node counts, as PNG, SVG and CSV; dp follows from the machine."""
    from foretrain.cli_plot import run_scaling  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_scaling(options, layout, only))


@plot.command("power")
@takes(JobOptions, LayoutOptions, PowerOptions)
def plot_power(options: JobOptions, layout: LayoutOptions, only: PowerOptions) -> None:
    """Power over a step, and time against energy over clocks and power caps, as PNG, SVG and CSV; stages as Perseus reads them."""
    from foretrain.cli_power import run_power  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_power(options, layout, only))


@plot.command("roofline")
@takes(RooflineOptions)
def plot_roofline(options: RooflineOptions) -> None:
    """The roofline of an accelerator in each precision, with a model's kernels as points, as PNG, SVG and CSV."""
    from foretrain.cli_roofline import run_roofline  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_roofline(options))


@plot.command("collective")
@takes(CollectiveOptions)
def plot_collective(options: CollectiveOptions) -> None:
    """Bus bandwidth and time of a collective against its size, measured points beside, as PNG, SVG and CSV."""
    from foretrain.cli_collective import run_collective  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_collective(options))


@app.command()
@takes(TraceOptions)
def trace(options: TraceOptions) -> None:
    """Trace a torch module without running it: a model for simulate."""
    from foretrain.cli_trace import run_trace  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_trace(options))


@app.command()
@takes(CalibrateOptions)
def calibrate(options: CalibrateOptions) -> None:
    """Measure this machine within a budget, or take your own runs, and write calibrated profiles with their residuals."""
    from foretrain.cli_calibrate import run_calibrate  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_calibrate(options))


@validate.command("published")
def validate_published(
    runs: Annotated[Path | None, typer.Argument(help="Published runs. [default: those of foretrain]", metavar="[RUNS.csv]")] = None,
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv, summary.json and a plot.", metavar="DIR")] = Path("out/published"),
    *,
    as_json: AsJson = False,
) -> None:
    """Predict published training runs and say how far the predictions are from what was measured."""
    from foretrain.cli_validate import run_published  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_published(runs, out, as_json=as_json))


@validate.command("compare")
@takes(CompareOptions, ComparedJobOptions, LayoutOptions)
def validate_compare(only: CompareOptions, options: ComparedJobOptions, layout: LayoutOptions) -> None:
    """Where a prediction parts from a recorded trace of torch.profiler; or a verdict on every step of measurements."""
    from foretrain.cli_compare import run_compare  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_compare(only, options, layout))


@validate.command("trainer")
@takes(TrainerOptions)
def validate_trainer(options: TrainerOptions) -> None:
    """Train for real, on the devices that are there, and say what a step takes. Resumes; status 2 where a case failed."""
    from foretrain.cli_trainer import run_trainer  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_trainer(options))


@app.command("list")
def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="models, hardware (clusters, nodes, accelerators, fabrics, facilities), software or schedules.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the names in the library."""
    from foretrain.cli_show import run_list  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_list(kind, as_json=as_json))


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name in the library, or a profile.")], *, as_json: AsJson = False) -> None:
    """Show a model, cluster, node, accelerator, fabric, facility, software or schedule, with the source of each figure."""
    from foretrain.cli_show import run_show  # noqa: PLC0415  # a command pays for its own imports

    raise typer.Exit(run_show(name, as_json=as_json))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Return the exit status of the command line with these arguments; nothing but our own bugs raises."""
    try:
        return _status(arguments)
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        if error.filename is not None:
            raise  # not a stream of ours, which have no file name
        _drop_output()
        return _refuse(f"output cannot be written: {error.strerror or error}; send it where there is space")
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def _status(arguments: Sequence[str]) -> int:
    """Return the exit status of a command that neither lost its output nor was interrupted."""
    # typer carries its own copy of click or imports the real one, depending on its release; these are its error classes either way.
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        status = typer.main.get_command(app).main(list(arguments), prog_name="foretrain", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except usage_error as error:
        return _refuse_usage(error, arguments)
    except ForetrainError as error:
        if isinstance(error.__cause__, OSError):
            _drop_output()
        return _refuse(str(error))
    return status if isinstance(status, int) else 0


def _drop_output() -> None:
    """Send what standard output still holds nowhere: its reader has left or its disk is full, and it must not fail again at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse_usage(error: Any, arguments: Sequence[str]) -> int:
    """Print a mistake in options or commands; without any argument, the help that typer made of it."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, flush=True)  # noqa: T201
        return MISTAKE
    commands = getattr(getattr(error.ctx, "command", None), "commands", {})
    unknown = next((word for word in arguments if f"'{word}'" in message), "")
    hint = nearest(unknown, commands) if commands and unknown and "did you mean" not in message.lower() else ""
    command = error.ctx.command_path if error.ctx else "foretrain"
    return _refuse(f"{' '.join(message.split()).rstrip('.')}{hint}; {command} --help shows what there is")


def _refuse(message: str) -> int:
    """Print a mistake in at most three lines and return its status."""
    lines = [line for line in message.splitlines() if line.strip()]
    shown = lines if len(lines) <= 3 else [*lines[:2], f"… and {len(lines) - 2} more"]
    from foretrain.cli_output import warn  # noqa: PLC0415  # brings what a table needs

    warn("foretrain: " + "\n".join(shown))
    return MISTAKE
