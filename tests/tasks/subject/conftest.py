"""Tiny pipelines, and a run of one of them on real photographs."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import data_folder
from tests.tasks.subject.pipelines import write_sd15, write_sdxl


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="session")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd15(tmp_path_factory.mktemp("sd15"))


@pytest.fixture(scope="session")
def photographs() -> Path:
    """Five photographs of a dog."""
    return data_folder("dreambooth") / "dog"


def settings(model: Path, images: Path, **changes: Any) -> Any:
    """Settings of a run of a few steps."""
    from moslora.tasks.subject.config import SubjectTrainConfig

    small: dict[str, Any] = {
        "model": str(model),
        "images": str(images),
        "prompt": "a photo of sks dog",
        "resolution": 32,
        "max_steps": 6,
        "micro_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 2,
        "save_steps": 2,
    }
    return SubjectTrainConfig(**{**small, **changes})


@pytest.fixture(scope="session")
def trained(sdxl: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MoSLoRA on the tiny SDXL."""
    from moslora.tasks.subject.train import train

    folder = tmp_path_factory.mktemp("runs") / "run"
    train(settings(sdxl, photographs), folder)
    return folder
