"""What the README shows works as shown."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def text():
    if not README.is_file():
        pytest.skip("README.md is not beside the tests: run them from the source tree")
    return README.read_text()


def test_the_examples_run_and_print_what_they_say(text, capsys):
    program, compiled = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(compile(program, "README.md", "exec"), names)
    gradient, held_out, ok = capsys.readouterr().out.splitlines()
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d+", gradient)]
    stated = re.search(r"# sin\(x\) \+ x cos\(x\): (.*)", program)[1]
    assert numbers == pytest.approx([float(number) for number in stated.split(", ")], abs=1e-4)
    assert 85 < float(held_out.split()[0]) < 95
    assert ok == "True"
    exec(compile(compiled, "README.md", "exec"), names)
    train, step = names["data"].train, names["step"]
    losses = [step(train.inputs[:64], train.targets[:64]).item() for _ in range(4)]
    assert len(set(losses)) == 4 and max(losses) < 1.0 and step.why_not is None


def test_pictures_and_links_are_there(text):
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert "CONTRIBUTING.md" in targets
    for target in targets:
        assert (README.parent / target).is_file(), target
