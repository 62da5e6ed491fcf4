"""The `moslora` command: one module of this folder per command.

`train_vision_language.py` is `moslora train vision-language`, `import_.py` is `moslora import`. Commands are found by
listing the folder, and a command's own code is imported only when it runs, so `moslora --help` needs no torch.
"""

import ast
import difflib
import errno
import importlib
import io
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import MoSLoRAError, MoSLoRAWarning, Stopped

FOLDER = Path(__file__).parent
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what a disk that is full or write-protected answers
_python_format = warnings.formatwarning


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code.

    0; 1 for an error of moslora's own; 2 for a wrong command line; 128 and the number of a signal that stopped it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal has no letters for is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still in the buffer goes nowhere
        return 128 + signal.SIGPIPE


def _run(arguments: list[str]) -> int:
    words, rest = _split(arguments)
    if words is None:
        return _explain(arguments)
    # PEFT still calls names that transformers has renamed, and bitsandbytes tells of a faster kernel for 4-bit layers
    # whenever it is imported: nothing that a user could act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.formatwarning = _format_warning
    module = importlib.import_module(f".{_module_name(words)}", __name__)
    try:
        _parse(module, words, rest).run()
        _part_from_other_processes()
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signal
    except MoSLoRAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"error: {error}. Make room or choose another folder, then repeat the command.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _part_from_other_processes() -> None:
    """End the connections of a distributed run together: a process that just exits can make another one abort."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Our own warnings are for the person at the keyboard, who does not care which line they come from."""
    if issubclass(category, MoSLoRAWarning):
        return f"warning: {message}\n"
    return _python_format(message, category, filename, lineno, line)


def commands() -> dict[tuple[str, ...], str]:
    """Words of every command -> its one-line summary, the first line of its module's docstring."""
    found: dict[tuple[str, ...], str] = {}
    for path in sorted(FOLDER.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        verb, _, rest = path.stem.rstrip("_").partition("_")
        found[(verb, rest.replace("_", "-")) if rest else (verb,)] = docstring.partition("\n")[0]
    return found


def _module_name(words: tuple[str, ...]) -> str:
    name = "_".join(words).replace("-", "_")
    return name if (FOLDER / f"{name}.py").exists() else f"{name}_"


def _split(arguments: list[str]) -> tuple[tuple[str, ...] | None, list[str]]:
    """The longest command at the start of the arguments, and what follows it."""
    known = commands()
    for length in (2, 1):
        words = tuple(arguments[:length])
        if len(words) == length and words in known:
            return words, arguments[length:]
    return None, arguments


def _parse(module: ModuleType, words: tuple[str, ...], rest: list[str]) -> Any:
    if hasattr(module.Command, "parse"):
        return module.Command.parse(rest)
    import tyro

    prog = " ".join(("moslora", *words))
    return tyro.cli(module.Command, prog=prog, args=rest, description=module.__doc__)


def _explain(arguments: list[str]) -> int:
    """Print the help of `moslora`, or of a group such as `moslora train`; complain about anything else."""
    if arguments in (["--version"], ["-V"]):
        from .. import __version__

        print(f"moslora {__version__}")
        return 0
    named = [word for word in arguments if not word.startswith("-")]
    chosen = {words: line for words, line in commands().items() if not named or words[0] == named[0]}
    unknown = bool(named) and (not chosen or len(named) > 1)
    if unknown:
        names = [" ".join(words) for words in commands()]
        close = difflib.get_close_matches(" ".join(named[:2]), names, 1) or difflib.get_close_matches(
            named[0], names, 1
        )
        hint = f" Did you mean `moslora {close[0]}`?" if close else ""
        print(f"error: no command `moslora {' '.join(named[:2])}`.{hint}\n", file=sys.stderr)
        chosen = commands()
    output = sys.stderr if unknown else sys.stdout
    print("MoSLoRA for everybody who fine-tunes models: train, evaluate, export, inspect.\n", file=output)
    print("usage: moslora COMMAND [--help] [options]\n", file=output)
    width = max(len(" ".join(words)) for words in chosen)
    for words, line in chosen.items():
        print(f"  {' '.join(words):<{width}}  {line}", file=output)
    print("\n`moslora COMMAND --help` shows the options of a command and an example.", file=output)
    return 2 if unknown else 0
