"""The other commands, and what happens without the extra `train`."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import tinygrad_nm as nm
from tinygrad_nm import _cpu, cli
from tinygrad_nm.cli import info
from tinygrad_nm.cli.app import app
from tinygrad_nm.data import cache_folder, download

BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
sys.argv = {argv!r}
from tinygrad_nm.cli import main
main()
"""


def without(blocked, *arguments):
    """The command in a process where importing any of `blocked` fails."""
    program = BLOCKED.format(blocked=blocked, argv=["tinygrad-nm", *arguments])
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


OTHERS = ("typer", "rich", "matplotlib", "safetensors", "mlxtend", "scipy", "PIL", "torch")


def test_info_needs_numpy_alone():
    done = without(OTHERS, "info")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"tinygrad_nm {nm.__version__}\n")
    for words in ("built with", "CUDA", "instructions", "threads", "NumPy"):
        assert words in done.stdout


def test_info_tells_what_is_built_and_used(monkeypatch):
    monkeypatch.delenv("TINYGRAD_NM_ISA", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    text = info.report()
    for key, value in _cpu.build_options().items():
        assert value in text, key
    for name, available, why in _cpu.isas():
        state = "in use (the best here)" if name == _cpu.isa() else f"{'' if available else 'not '}available ({why})"
        assert f"{name}: {state}" in text
    assert "devices       cpu: available\n" in text and "\n              cuda-emulated: available\n" in text
    assert re.search(r"\n              cuda: (not )?available", text)
    assert f"threads       {nm.get_num_threads()} (" in text
    assert "OMP_NUM_THREADS: 5" in text
    monkeypatch.setenv("TINYGRAD_NM_ISA", _cpu.isa())
    assert f"{_cpu.isa()}: in use (forced by TINYGRAD_NM_ISA)" in info.report()


@pytest.mark.parametrize("command", [["train", "lenet5"], ["summary", "lenet"], ["data", "mnist"], [], ["--help"]])
@pytest.mark.parametrize("missing", ["typer", "rich", "matplotlib", "safetensors"])
def test_without_the_extra(monkeypatch, capsys, command, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(sys, "argv", ["tinygrad-nm", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"tinygrad-nm: {missing} not installed, which every command but `info` needs:"
        " pip install 'tinygrad-nm[train]'\n"
    )


def test_without_the_extra_in_a_process():
    done = without(("typer",), "train", "lenet5")
    assert done.returncode == 2
    assert "pip install 'tinygrad-nm[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_main_runs_the_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tinygrad-nm", "info"])
    cli.main()
    by_main = capsys.readouterr().out
    assert by_main == CliRunner().invoke(app, ["info"]).stdout
    monkeypatch.setattr(sys, "argv", ["tinygrad-nm", "summary", "lenet"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "3,246" in capsys.readouterr().out


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "tinygrad_nm.cli", "info"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("tinygrad_nm ")


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        (["lenet"], "3,246"),
        (["lenet1989"], "2,578"),
        (["lenet5"], "61,706"),
        (["deep"], "8,832"),  # 2 -> 64 -> 64 -> 64 -> 5: 192 + 2 x 4,160 + 320
        (["deep", "--depth", "1", "--width", "10"], "80"),
    ],
)
def test_summary(arguments, parameters):
    result = CliRunner().invoke(app, ["summary", *arguments])
    assert result.exit_code == 0, result.output
    total = next(line for line in result.output.splitlines() if line.startswith("total"))
    assert total.split()[1] == parameters


def test_summary_of_alexnet():
    result = CliRunner().invoke(app, ["summary", "alexnet"])
    assert result.exit_code == 0, result.output
    assert "60,965,224" in result.output
    assert "724,406,816" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["vgg"], "unknown model 'vgg'; choose one of lenet, "), (["lenet", "--depth", "2"], "--depth are for deep")],
)
def test_summary_mistakes(arguments, words):
    result = CliRunner().invoke(app, ["summary", *arguments])
    assert result.exit_code == 1
    assert words in result.stderr


def test_data_mnist_asks_the_mirror_it_is_given(monkeypatch, tmp_path):
    calls = []

    def fake(folder, mirrors, report):
        calls.append((folder, mirrors))
        report("fetched")
        return folder or cache_folder()

    monkeypatch.setattr("tinygrad_nm.cli.app.download_mnist", fake)
    result = CliRunner().invoke(app, ["data", "mnist"])
    assert result.output.splitlines() == ["fetched", f"MNIST is in {cache_folder()}"]
    CliRunner().invoke(app, ["data", "mnist", "--mirror", "https://example.org/m", "--folder", str(tmp_path)])
    assert calls == [(None, download.MIRRORS), (tmp_path, ("https://example.org/m/",))]


def test_data_mnist_without_an_answer(tmp_path):
    result = CliRunner().invoke(
        app, ["data", "mnist", "--mirror", "file:///nowhere", "--folder", str(tmp_path / "cache")]
    )
    assert result.exit_code == 1
    assert result.stderr.startswith("error: download: no mirror gave a good train-images-idx3-ubyte.gz")
    assert not list((tmp_path / "cache").iterdir())
