"""Build a blind rating study from the pictures of two methods.

    moslora rate build runs/dog-lora runs/dog-moslora --out study --prompts 8

Pictures of one prompt and one seed become a pair. RUN_A and RUN_B are run folders with generated pictures, or plain
folders with an images.jsonl. Several subjects: --pair RUN_A RUN_B once for each. Writes STUDY with every picture under
a random name, encoded again without metadata; an existing STUDY is never overwritten. docs/rating.md shows the way.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora rate build`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN_A RUN_B")] = ()
    """Two runs of one subject. Results will say how B does against A: put the baseline first."""
    pair: Annotated[tuple[tuple[Path, Path], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="RUN_A RUN_B")] = ()
    """Two runs of one more subject."""
    out: Path
    """New folder of the study."""
    references: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="DIR")] = ()
    """Folder of photographs of the subject; once for each pair, in the same order. The runs' own by default."""
    names: tuple[str, ...] = ()
    """Names of A and B in tables; the methods of the runs by default. Raters see neither."""
    subjects: tuple[str, ...] = ()
    """Names of the subjects in tables, one for each pair; those of the folders of photographs by default."""
    title: str = "Comparing pictures"
    """Heading that raters see."""
    prompts: int | None = None
    """Draw so many prompts of each subject (the paper: 8); all by default."""
    per_prompt: int | None = None
    """Draw so many pictures of each prompt; all by default."""
    checks: int = 2
    """Attention checks of each kind: a picture beside itself, a photograph beside noise."""
    longest: int = 1024
    """Longer side of the pictures, in pixels; larger ones are made smaller."""
    quality: int | None = None
    """Quality of lossy WebP, 1 to 100, for slow lines; every pixel is kept by default."""
    seed: int = 0
    """Draws the prompts, the checks, and what each rater sees."""

    def run(self) -> None:
        """Build the study and say what is in it."""
        from ..tasks.subject.rating.build import StudyConfig, build_study

        if len(self.runs) not in (0, 2):
            raise ConfigError(f"{len(self.runs)} runs: give RUN_A RUN_B, and more subjects as --pair RUN_A RUN_B.")
        values = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(StudyConfig) if field.name != "pairs"
        }
        pairs = ((self.runs[0], self.runs[1]), *self.pair) if self.runs else self.pair
        config = StudyConfig(pairs=pairs, **values)
        study = build_study(config, self.out)
        print_study(study)
        print(f"\n{self.out}\nnext: moslora rate serve {self.out} --raters 15")


def print_study(study: dict[str, Any]) -> None:
    """Print what a study is of, and what was left out."""
    from ..tasks.subject.rating.questions import minutes

    print(f"{study['b']} (B) against {study['a']} (A)")
    for subject in study["subjects"]:
        print("  {name}: {pairs} pairs, {prompts} prompts, {references} photographs".format(**subject))
    total = sum(subject["pairs"] for subject in study["subjects"])
    checks = 2 * study["settings"]["checks"]
    print(f"{total} pairs and {checks} attention checks: about {minutes(total + checks)} minutes for a rater")
    if study["reshaped"]:
        print(f"{study['reshaped']} pairs had pictures of different shapes, which were cut to the same one")
    if unmatched := study["unmatched"]:
        print(f"{len(unmatched)} pictures have no partner and are left out:")
        print("\n".join(f"  {sentence}" for sentence in unmatched[:10]))
        if len(unmatched) > 10:
            print(f"  and {len(unmatched) - 10} more, all of them in study.json")
