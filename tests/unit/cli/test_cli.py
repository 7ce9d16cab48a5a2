"""The command line: its help, and errors of the user as messages with exit code 1."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hafabench.cli import cli, friendly
from hafabench.cli.terminal import _plain
from hafabench.errors import Problem, UserError
from tools.checkout import REPOSITORY


def hafabench(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "hafabench", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_help_shows_a_way_in():
    done = CliRunner().invoke(cli, ["--help"])
    assert done.exit_code == 0
    for word in (
        "A first look",
        "hafabench train classification/pvt_tiny/seed0",
        "make demo",
        "evaluate",
    ):
        assert word in done.output


def test_every_verb_has_help():
    for name in cli.commands:
        done = CliRunner().invoke(cli, [name, "--help"])
        assert done.exit_code == 0, name
        assert len(done.output.splitlines()[2].strip()) > 20, f"{name} says nothing of what it does"


def test_errors_are_sentences_not_tracebacks(write_experiment):
    path = write_experiment(lambda c: c.update(colour="red", scale="huge"))
    done = hafabench("runs", "--experiment", str(path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert all(line.startswith(f"error: {path}:") for line in done.stderr.splitlines())


def test_notes_are_not_called_errors(capsys):
    @friendly
    def fails() -> None:
        raise UserError([Problem("a.json", "", "no such file"), "note: 1 image is not read"])

    with pytest.raises(SystemExit):
        fails()
    assert capsys.readouterr().err == "error: a.json: no such file\nnote: 1 image is not read\n"


def test_unknown_run_names_the_nearest():
    done = hafabench("train", "classification/pvt_tinny/seed0")
    assert done.returncode == 1
    assert "did you mean classification/pvt_tiny/seed0" in done.stderr
    assert "Traceback" not in done.stderr


def test_several_nodes_outside_slurm_are_refused():
    done = hafabench("train", "classification/pvt_tiny/seed0", "--nodes", "2")
    assert done.returncode == 1
    assert done.stderr.startswith("error: environment: SLURM_STEP_NUM_NODES: not set")
    assert len(done.stderr.splitlines()) == 1


def test_runs_are_listed_with_their_fingerprints():
    done = CliRunner().invoke(cli, ["runs", "--experiment", str(REPOSITORY / "configs/digits.yaml")])
    assert done.exit_code == 0
    assert len(done.output.splitlines()) == 19
    assert all(len(line.split()[0]) == 12 for line in done.output.splitlines())


def test_models_are_listed():
    lines = CliRunner().invoke(cli, ["models"]).output.splitlines()
    assert any("pvt_tiny_hafa " in line and "laa-laa-sia" in line for line in lines)
    assert any("dynamic_swin_tiny_0.25 " in line and "keeps constant 0.25" in line for line in lines)


def test_a_missing_checkpoint_is_one_message(write_experiment, tmp_path):
    done = hafabench("evaluate", "classification/pvt_tiny/seed0", "-e", str(write_experiment()), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: results/digits/classification/pvt_tiny/seed0/checkpoint.pth: no such checkpoint\n"


def test_unknown_latency_group(write_experiment):
    done = hafabench("latency", "table9", "-e", str(write_experiment()))
    assert done.returncode == 1
    assert "no group 'table9'; expected one of table4" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_terminals_that_lack_characters_get_plain_ones(encoding, write_experiment, tmp_path):
    path = write_experiment(lambda content: content.update(title="±")).rename(tmp_path / "a \u2013 é 数.yaml")
    command = [sys.executable, "-m", "hafabench"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for arguments, plain in ((["check"], "a - "), (["runs"], "pvt_tiny_hafa"), (["train", "x"], "a - ")):
        # The results of an experiment of the same name in the checkout would belong to another file.
        line = [*command, *arguments, "-e", str(path)]
        done = subprocess.run(line, env=environment, capture_output=True, cwd=tmp_path)
        said = (done.stdout + done.stderr).decode(encoding, "replace")
        assert "Traceback" not in said
        # click itself writes UTF-8 where the encoding is ASCII, which it takes for a mistake.
        assert (plain if encoding == "latin-1" else plain[0]) in said


def test_every_special_character_of_the_program_has_a_plain_spelling():
    """Those outside ASCII in texts that are printed; file names and arbitrary texts become escapes."""
    sources = "".join(path.read_text() for path in (REPOSITORY / "src").rglob("*.py"))
    # The marks of the verdicts in the Markdown report of the gate are the exception.
    sources = re.sub("[\u2600-\u27ff\U0001f000-\U0001ffff]", "", sources)
    special = {character for character in sources if ord(character) > 127}
    codecs.register_error("test.plain", _plain)
    written = "".join(sorted(special)).encode("ascii", "test.plain").decode()
    assert "\\u" not in written and "\\x" not in written, written
    assert "数".encode("ascii", "test.plain") == b"\\u6570"
