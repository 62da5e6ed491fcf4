"""Settings of an evaluation. Their docstrings are the help of the command-line flags."""

import dataclasses
from pathlib import Path

from .benchmarks import Kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionEvalConfig:
    """Settings of an evaluation on VLMEvalKit's benchmarks."""

    run: Path
    """Folder of a finished `moslora train vision-language`."""
    data: Path
    """Folder that holds BENCHMARK.tsv for every benchmark."""
    benchmarks: tuple[str, ...]
    """The paper's MMBench_DEV_EN MMBench_DEV_CN SEEDBench_IMG AI2D_TEST ScienceQA_TEST TextVQA_VAL MathVista_MINI MMVet
    MME, the MMBench_TEST_EN and _CN of the leaderboard, ScienceQA_VAL, or your own."""
    kind: Kind | None = None
    """How benchmarks of your own are asked and scored; unless given, as multiple choice, which needs columns A, B."""
    max_new_tokens: int = 0
    """Tokens generated at most; 0: 16 for a letter or a yes, 32 for a short answer, 512 for MathVista and MM-Vet."""
    limit: int = 0
    """Only the first questions of each benchmark, with all their rotations; of MME, images. 0 takes all."""
    batch_size: int = 8
    """Questions per batch."""
    base_only: bool = False
    """Measure the model without the adapter, into RUN/eval-base."""
    into: str = ""
    """Folder of the run that is filled; unless given, `eval`, or `eval-base` with `base_only`."""
    leaderboard: tuple[str, ...] = ()
    """What MMBench's leaderboard said of files that were handed in, in percent, for example MMBench_TEST_EN=73.8."""
    judge_url: str = ""
    """An OpenAI-compatible endpoint, for example https://api.openai.com/v1. Without one, what no rule can read is lost
    and counted."""
    judge_model: str = ""
    """Name of the model that judges; the paper's was GPT-4-turbo."""
    judge_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key. The key is written nowhere."""
    judge_workers: int = 4
    """Requests to the judge at a time."""
