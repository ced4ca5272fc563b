"""The commands. Each is a thin layer of options over a function elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer import Argument, Option

import tinygrad_nm as nm
from tinygrad_nm.cli.info import report
from tinygrad_nm.cli.problem import Settings
from tinygrad_nm.cli.recipes import DEEP, SCHEDULES, SUMMARISED, TRAINABLE, builder, deep_options, known, summarised
from tinygrad_nm.cli.session import Session
from tinygrad_nm.data.download import MIRRORS, download_mnist

DOWNLOADS = "Fetch data sets. Nothing else in this program downloads anything."

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train the course's networks, look at their layers, and see how this installation was built.",
)
data = typer.Typer(no_args_is_help=True)
app.add_typer(data, name="data")

Depth = Annotated[int | None, Option(help=f"deep: layers of sigma(K y + b) [default: {DEEP.depth}]")]
Width = Annotated[int | None, Option(help=f"deep: units a layer [default: {DEEP.width}]")]
Activation = Annotated[
    str | None, Option(help=f"deep: sigma, such as tanh, relu or smooth_relu [default: {DEEP.activation}]")
]
DATA_HELP = "folder with MNIST's four files; by default the cache, else the 5,000 digits of the extra `digits`"
DEVICE_HELP = "where the arrays live: cpu, cuda, cuda:1 and so on, cuda-emulated (CUDA's kernels without a GPU)"
VALIDATION_HELP = "hold out so many training examples and report on them; the test set is then left alone"


@contextmanager
def told(*errors: type[Exception]) -> Iterator[None]:
    """Errors that the user can mend are told in a sentence, and the exit status is 1."""
    try:
        yield
    except errors as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def train(
    model: Annotated[str, Argument(help=f"one of {', '.join(TRAINABLE)}")],
    data: Annotated[Path | None, Option(help=DATA_HELP)] = None,
    dataset: Annotated[str | None, Option(help="digits; for deep also peaks, circle")] = None,
    task: Annotated[str, Option(help="classification, or regression (peaks)")] = "classification",
    epochs: Annotated[int | None, Option(help="passes over the training set")] = None,
    batch: Annotated[int | None, Option(help="examples a step")] = None,
    lr: Annotated[float | None, Option(help="first learning rate")] = None,
    momentum: Annotated[float | None, Option(help="momentum of SGD")] = None,
    schedule: Annotated[str | None, Option(help=f"learning rate: {', '.join(SCHEDULES)}")] = None,
    shift: Annotated[int | None, Option(help="pixels that digits move by at most, anew each epoch")] = None,
    seed: Annotated[int, Option(help="initial weights, order of the examples, shifts")] = 0,
    dtype: Annotated[str, Option(help="float32 or float64")] = "float32",
    device: Annotated[str, Option(help=DEVICE_HELP)] = "cpu",
    threads: Annotated[int | None, Option(help="the most threads a kernel uses; same result")] = None,
    validation: Annotated[int, Option(help=VALIDATION_HELP)] = 0,
    output: Annotated[Path | None, Option(help="folder of the run; by default runs/MODEL-001 and on")] = None,
    depth: Depth = None,
    width: Width = None,
    activation: Activation = None,
) -> None:
    """Train MODEL and report on the test set.

    Options left out take the numbers of the recipe, which are printed.
    Ctrl-C saves the weights and ends with status 130.
    """
    numbers: dict[str, float | str | None] = {"epochs": epochs, "batch": batch, "lr": lr}
    numbers |= {"momentum": momentum, "schedule": schedule, "shift": shift}
    with told(ValueError, OSError, ImportError, MemoryError):
        deep = deep_options(model, depth, width, activation)
        settings = Settings(model, dataset, task, data, validation, seed, dtype, device, output, threads, deep)
        session = Session(settings, numbers)
    with told(OSError, FloatingPointError, MemoryError):
        status = session.run()
    raise typer.Exit(status)


@app.command()
def summary(
    model: Annotated[str, Argument(help=f"one of {', '.join(SUMMARISED)}")],
    depth: Depth = None,
    width: Width = None,
    activation: Activation = None,
) -> None:
    """Print MODEL's layers: output shapes, parameters, connections, multiply-adds."""
    with told(ValueError, MemoryError):
        network = summarised(model, deep_options(model, depth, width, activation))
    typer.echo(str(nm.nn.summary(network)))


@app.command()
def roofline(
    model: Annotated[str, Argument(help=f"one of {', '.join(SUMMARISED)}")],
    batch: Annotated[int | None, Option(help="examples a step [default: 64, alexnet 32]")] = None,
    dtype: Annotated[str, Option(help="float32 or float64")] = "float32",
    threads: Annotated[int | None, Option(help="the most threads a kernel uses")] = None,
    seconds: Annotated[float, Option(help="time for each layer and pass")] = 0.3,
    json: Annotated[Path | None, Option(help="also write limits and points to this file")] = None,
    picture: Annotated[Path | None, Option(help="also draw the roofline into this file (.png, .svg, .pdf)")] = None,
    depth: Depth = None,
    width: Width = None,
    activation: Activation = None,
) -> None:
    """Measure this machine's peak arithmetic and memory bandwidth, and how near each layer of MODEL comes.

    Per layer and pass of one training step: time, GFLOP/s, GB/s, operations a byte, share of the attainable limit,
    and what bounds it.
    """
    from tinygrad_nm.cli import roofline as measured

    batch = (32 if model == "alexnet" else 64) if batch is None else batch
    with told(ValueError, OSError, MemoryError):
        known("roofline", "dtype", dtype, ("float32", "float64"))
        if batch < 1:
            raise ValueError(f"roofline: --batch is {batch}; use 1 or more")
        deep = deep_options(model, depth, width, activation)
        build = builder("roofline", model, deep)
        limits, points = measured.roofline(build, model, batch, dtype, threads, seconds)
        typer.echo(str(limits))
        console = Console()
        Console(width=console.width if console.is_terminal else 120).print(
            measured.table(points)
        )  # a pipe has no width
        if json is not None:
            measured.save_json(json, model, batch, limits, points)
        if picture is not None:
            measured.save_picture(picture, model, batch, limits, points)


@app.command()
def info() -> None:
    """Print version, build options, CUDA and why not, instruction sets, threads."""
    typer.echo(report())


@data.callback(help=DOWNLOADS)
def fetch() -> None:
    """A command of its own, so that `data` stays a group with one member."""


@data.command("mnist")
def fetch_mnist(
    mirror: Annotated[str | None, Option(help="address of a folder with the four files")] = None,
    folder: Annotated[Path | None, Option(help="where to put them; by default the cache")] = None,
) -> None:
    """Fetch the four files of MNIST (11 MB), check their content, and keep them in the cache."""
    with told(OSError, ValueError):
        mirrors = MIRRORS if mirror is None else (mirror.rstrip("/") + "/",)
        target = download_mnist(folder, mirrors, typer.echo)
    typer.echo(f"MNIST is in {target}")
