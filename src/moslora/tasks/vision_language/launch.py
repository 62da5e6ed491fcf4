"""Configs of distributed training that come with the package."""

from pathlib import Path

from ...errors import ConfigError

FOLDER = Path(__file__).parents[2] / "recipes" / "launch"


def deepspeed_config(name: str) -> str:
    """Path of a DeepSpeed config.

    Args:
        name: of one that comes with the package, such as zero2, or the path of a .json file.

    Raises:
        ConfigError: there is none, or DeepSpeed is not installed.
    """
    import importlib.util

    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.json")))
        raise ConfigError(f"There is no DeepSpeed config {name!r}: choose {known}, or give the path of a .json file.")
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(f"--deepspeed {name} needs DeepSpeed: pip install deepspeed.")
    return str(path)
