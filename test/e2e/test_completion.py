"""Shell completion: what 'isthmus complete' offers, and the bash script that asks it."""
import os
import subprocess

import pytest

from conftest import BIN


def words(isthmus, *typed):
    return isthmus("complete", "--", *typed).split()


def test_commands_and_options(isthmus):
    assert {"compile", "run", "serve", "bench", "completion"} <= set(words(isthmus, ""))
    assert words(isthmus, "inv") == []
    assert words(isthmus, "cluster", "inv") == ["invite"]
    assert words(isthmus, "run", "--prom") == ["--prompt"]
    assert {"--threads", "--profile", "--trace"} <= set(words(isthmus, "bench", "x.isth", "--"))
    # The compiler's options come from the compiler.
    assert words(isthmus, "compile", "model.gguf", "--top") == ["--topology"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(isthmus, shell):
    assert "isthmus complete --" in isthmus("completion", shell)
    assert "tcsh" in isthmus.fails("completion", "tcsh")


def test_bash_completes(isthmus, tmp_path):
    (tmp_path / "completion").write_text(isthmus("completion", "bash"))
    script = f"""source {tmp_path}/completion
COMP_WORDS=(isthmus cluster jo) COMP_CWORD=2
_isthmus; echo "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True,
                          env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"})
    assert done.stdout.strip() == "join", done.stderr
