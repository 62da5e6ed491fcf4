"""The command line as a whole: help, speed of the help, errors."""

import re
import subprocess
import sys

import pytest

import moslora
from moslora.cli import commands, main


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for words, summary in commands().items():
        assert " ".join(words) in printed
        assert summary in printed
        assert summary.endswith(".")


def test_help_takes_less_than_half_a_second():
    """Of the processor, which a busy machine does not change."""
    code = "import time; from moslora.cli import main; main(['--help']); print(time.process_time())"
    printed = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True) for _ in range(3)
    ]
    assert min(float(done.stdout.splitlines()[-1]) for done in printed) < 0.5


def test_help_imports_neither_torch_nor_peft():
    code = "import sys\nfrom moslora.cli import main\nmain(['--help'])\nprint({'torch', 'peft'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[-1] == "set()"


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_every_command_explains_itself_with_an_example(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    _, _, explanation = capsys.readouterr().out.partition("usage:")
    assert re.search(rf"^\W*moslora {' '.join(words)} \S", explanation.partition("\n")[2], re.MULTILINE)


def test_a_group_lists_its_commands(capsys):
    assert main(["train"]) == 0
    printed = capsys.readouterr().out
    assert "train commonsense" in printed
    assert "export" not in printed.partition("usage")[2].partition("\n\n")[2].replace("export, inspect", "")


def test_a_wrong_word_gets_the_nearest_command(capsys):
    assert main(["train", "comonsense"]) == 2
    assert "Did you mean `moslora train commonsense`?" in capsys.readouterr().err


def test_an_error_is_one_line_without_a_traceback(capsys):
    assert main(["train", "commonsense", "--model", "/nowhere", "--data", "x.json"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "--out" in message
    assert "Traceback" not in message


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"moslora {moslora.__version__}\n"


def test_our_warnings_are_one_line_and_those_of_others_say_where_they_come_from():
    code = (
        "import sys, warnings; from moslora.cli import main; from moslora.errors import MoSLoRAWarning\n"
        "try: main(['inspect', '--help'])\nexcept SystemExit: pass\n"
        "warnings.warn('look here', MoSLoRAWarning); warnings.warn('and there', UserWarning)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    ours, *others = done.stderr.splitlines()
    assert ours == "warning: look here"
    assert "UserWarning: and there" in others[0]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
@pytest.mark.parametrize("words", ["--help", "train commonsense --help", "doctor"])
def test_a_reader_that_goes_away_is_no_error(words):
    command = f"{sys.executable} -c 'from moslora.cli import main; raise SystemExit(main())' {words} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
