"""What the command line accepts and says: help, spelling, lists and sizes, completion."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deal import cli
from deal.cli import entry_point
from deal.training.settings import Settings

CONFIGS = Path(__file__).parents[1] / "docs" / "configs"
COMMANDS = tuple(entry_point.COMMANDS)
SCREEN = 24  # lines


def test_help_is_there_at_once():
    """Without torch."""
    script = """
import sys
from deal import cli
try:
    cli.main(["--help"])
finally:
    assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(f"\n  {command} " in found.stdout for command in COMMANDS)
    assert len(found.stdout.splitlines()) <= SCREEN


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(command, capsys):
    said = {}
    for option in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, option])
        assert stopped.value.code == 0
        said[option] = capsys.readouterr().out
    lines = said["--help"].splitlines()
    assert len(lines) <= SCREEN and max(map(len, lines)) <= 80 and f"deal {command} --help-all" in lines[-1]
    wanted = {
        "train": ("--config", "--print-config", "--strategy {policy,das,average,random}", "clean images"),
        "enhance": (
            "--skip-existing", "--keep-going", "--scale {1,2,4}", "--parts NAME", "--strength", "--tile",
            "--precision {auto,fp32,bf16}",
        ),
        "degrade": ("--ops", "--seed"), "info": ("model",), "convert": ("checkpoint",), "demo": ("--minutes",),
        "evaluate": ("--data", "--pairs", "--suite", "--methods", "--crop", "none uses whole images", "--fuser FILE"),
        "train-fuser": ("--pairs FOLDER", "--output", "--learning-rate", "random crops"),
    }  # fmt: skip
    assert all(words in said["--help-all"] for words in wanted.get(command, ()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "a command must be given"),
        ("enhence", "there is no command enhence; did you mean enhance?"),
        ("--versoin", "there is no option --versoin before a command; did you mean --version?"),
        ("enhance -i a", "--output must be given"),
        ("enhance -i a -o b --scale 3", "--scale must be one of 1, 2, 4; got 3"),
        ("enhance -i a -o b --precision pf32", "must be one of auto, fp32, bf16; got pf32; did you mean fp32?"),
        ("enhance -i a -o b --parts colums", "got colums; did you mean columns?"),
        ("enhance -i a -o b --tile x", "--tile must be one of auto, a whole number; got x"),
        ("enhance -i a -o b --keep-gonig", "there is no option --keep-gonig; did you mean --keep-going?"),
        ("enhance a b", "unrecognized arguments: a b"),
        ("train --stepps 3", "there is no option --stepps; did you mean --steps"),
        ("train --steps 1.5", "--steps must be a whole number; got 1.5"),
        ("train --crop 3xx", "--crop must be one of a whole number, two numbers, none; got 3xx"),
    ],
)
def test_command_lines_that_are_none(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments.split())
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and len(said) < 200


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("info", "convert", "doctor", "export")])
def test_commands_that_compute_take_threads_and_a_device(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    said = capsys.readouterr().out
    assert "--threads" in said and "--device" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell, capsys):
    pytest.importorskip("shtab")
    assert cli.main(["--completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("train-fuser", "skip-existing", "columns", "learning-rate"))


def test_completion_in_bash(tmp_path, capsys):
    """A command, an option and a choice, completed by bash itself."""
    pytest.importorskip("shtab")
    assert cli.main(["--completion", "bash"]) == 0
    (tmp_path / "deal.bash").write_text(capsys.readouterr().out)
    for words, expected in (
        ("deal enh", "enhance"), ("deal enhance --keep", "--keep-going"), ("deal enhance --parts sh", "shading"),
    ):  # fmt: skip
        script = (
            f"source {tmp_path / 'deal.bash'}; COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; "
            "_shtab_deal 2>/dev/null; echo ${COMPREPLY[@]}"
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [expected], words


def parsed_settings(capsys, *arguments):
    """The settings of a training command, without the training."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", *arguments, "--print-config"])
    assert stopped.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_train_takes_lists_hyphens_and_flags(tmp_path, capsys):
    options = [
        "--images", "a", "b", "--learning-rate", "0.01", "--crop", "96", "128", "--window", "0", "99.5", "--ops",
        "stripe", "gain", "--blocks", "deal-u-small", "--resume", "--no-flip-augmentation", "--weights",
        "x.safetensors",
    ]  # fmt: skip
    settings = parsed_settings(capsys, *options)
    expected = {
        "images": ["a", "b"], "learning_rate": 0.01, "crop": [96, 128], "window": [0, 99.5], "ops": ["stripe", "gain"],
        "blocks": "deal-u-small", "resume": True, "flip_augmentation": False, "weights": "x.safetensors",
    }  # fmt: skip
    assert {name: settings[name] for name in expected} == expected
    assert parsed_settings(capsys, "--crop", "96")["crop"] == 96
    assert parsed_settings(capsys, "--crop", "96x128")["crop"] == [96, 128]
    assert parsed_settings(capsys, "--crop", "none")["crop"] is None
    config = tmp_path / "run.yaml"
    config.write_text("images: a\ncrop: 96\nresume: true\nwarmup_steps: 3\n")
    settings = parsed_settings(capsys, "--config", str(config), "--crop", "32")
    assert (settings["images"], settings["crop"], settings["resume"], settings["warmup_steps"]) == ("a", 32, True, 3)


@pytest.mark.parametrize("config", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_of_the_documentation(config, capsys):
    settings = parsed_settings(capsys, "--config", str(config))
    settings.pop("config", None)
    Settings(**settings)
