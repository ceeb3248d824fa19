"""Shell completion: commands, options, files and the keys behind --set, as click's own classes ask for them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from trueup.cli.main import main


def offered(*words: str) -> list[str]:
    """What is offered for the last of `words`."""
    shell = ShellComplete(main, {}, "trueup", "_TRUEUP_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_commands_and_options() -> None:
    assert {"dpo", "demo", "data", "doctor"} == set(offered("d"))
    assert offered("data", "ch") == ["check"]
    assert "--rebuild" in offered("dpo", "run.yaml", "--re")
    assert offered("demo", "--method", "p") == ["ppo"]


def test_keys_behind_set_with_defaults_and_choices() -> None:
    assert offered("dpo", "run.yaml", "--set", "dpo.be") == ["dpo.beta=0.1"]
    assert offered("status", "run.yaml", "--set", "method=") == [
        "method=dpo",
        "method=kto",
        "method=ppo",
        "method=grpo",
    ]
    assert "goal.kl=null" in offered("data", "check", "run.yaml", "--set", "goal.")
    assert offered("dpo", "run.yaml", "--set", "dpo.nothing") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_reads(shell: str, tmp_path: Path) -> None:
    written = CliRunner().invoke(main, ["completion", shell])
    assert written.exit_code == 0 and "_TRUEUP_COMPLETE" in written.output
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(written.output)
    checked = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_what_is_typed(tmp_path: Path) -> None:
    script = CliRunner().invoke(main, ["completion", "bash"]).output
    (tmp_path / "trueup").write_text(f'#!/bin/sh\nexec {sys.executable} -c "from trueup.cli.main import main; '
                                     'main(prog_name=\'trueup\')" "$@"\n')  # fmt: skip
    (tmp_path / "trueup").chmod(0o755)
    asked = (
        'COMP_WORDS=(trueup dpo run.yaml --set dpo.be); COMP_CWORD=4; _trueup_completion trueup; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", f'PATH="{tmp_path}:$PATH"\n{script}\n{asked}'], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("dpo.beta=0.1"), done.stderr
