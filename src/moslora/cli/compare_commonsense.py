"""Compare methods over learning rates and seeds on commonsense questions, with statistics.

    moslora compare commonsense --model meta-llama/Meta-Llama-3-8B-Instruct --data commonsense_170k.json \\
        --tests dataset --benchmarks boolq piqa --methods lora moslora --learning-rates 1e-4 3e-4 \\
        --seeds 0 1 2 --recipe commonsense/llama3-8b --eval decoding=greedy --out studies/llama3

Every combination is one cell: a run folder below STUDY/cells that is trained, then evaluated on the tests and on
training questions held out to choose each method's learning rate. Writes STUDY/statistics.json, prints what it says,
and draws STUDY/report.
The same command again goes on where it was interrupted, and tries failed cells again; more methods, learning rates,
seeds and fractions may be added to a study later. docs/comparison.md explains the statistics.
"""

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, RunError
from ..recipes import configure, load_recipe, parse_assignments
from ..tasks.commonsense.config import CommonsenseEvalConfig, CommonsenseTrainConfig

if TYPE_CHECKING:
    from ..compare.study import Study

# Where else a setting is given, for the message to somebody who gives it with --set or --eval.
_ELSEWHERE = {
    "method": "--methods",
    "learning_rate": "--learning-rates",
    "seed": "--seeds",
    "train_fraction": "--train-fractions",
    "match": "--match",
    "model": "--model",
    "data": "--data",
}
_EVAL_ELSEWHERE = {
    "data": "--tests",
    "benchmarks": "--benchmarks",
    "run": "--out",
    "into": "--out",
    "base_only": "--out",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora compare commonsense`."""

    tests: Path
    """Folder that holds BENCHMARK/test.json or test.json.gz for every benchmark."""
    benchmarks: tuple[str, ...]
    """Names of the benchmarks."""
    out: Path
    """Folder of the study: a new one, or one begun with the same settings."""
    model: str | None = None
    """Folder of a causal language model, its hub id, or `embedded`; may come from the recipe."""
    data: tuple[str, ...] = ()
    """Training files, as `moslora train commonsense` takes them; may come from the recipe."""
    methods: tuple[str, ...] = ("lora", "moslora")
    """Methods to compare, as `moslora train commonsense --method` takes them."""
    learning_rates: tuple[float, ...] = ()
    """Tried with every method, which is then tested at its best; the recipe's unless given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Run seeds. Methods are compared seed by seed: one seed gives all the same data order and the same A."""
    train_fractions: tuple[float, ...] = (1.0,)
    """Shares of the training data, in (0, 1]."""
    baseline: str = "lora"
    """The method that the others are compared with."""
    match: Literal["rank", "parameters"] = "rank"
    """rank: all methods have the rank of the settings; parameters: each has the rank at which it trains as many
    parameters as the baseline. Full fine-tuning and file:CONFIG.json keep their size."""
    validation_size: int | None = None
    """Training questions held out to choose the learning rate; 10 % but at most 500 unless given."""
    split_seed: int = 0
    """Draws the held-out questions, once for the whole study."""
    recipe: str | None = None
    """Name of a published setting, such as commonsense/llama3-8b, or the path of a .toml file."""
    set: tuple[str, ...] = ()
    """Training settings as key=value; `moslora train commonsense --help` lists them."""
    eval: tuple[str, ...] = ()
    """Evaluation settings as key=value, such as decoding=greedy; `moslora eval commonsense --help` lists them."""
    jobs: int = 1
    """Cells at work at a time, each in a process with its share of the cores and, if there are some, one GPU."""
    dry_run: bool = False
    """Print the number of cells, the parameters of each method and, once a cell is done, the hours left; then stop."""

    def run(self) -> None:
        """Run the grid, then print and write the statistics."""
        study = self.study()
        if self.dry_run:
            self._estimate(study)
            return
        from ..compare.grid import run_grid
        from ..compare.results import write_statistics
        from ..report.study import write_report

        try:
            outcome = run_grid(study, self.out, self.jobs, self.line())
        except KeyboardInterrupt:
            print(f"stopped; the same command goes on with what is in {self.out}")
            raise
        if outcome.done:
            print_statistics(write_statistics(self.out))
            print(f"\n{self.out / 'statistics.json'}")
            print(write_report(self.out, self.out / "report"))
        if outcome.failed:
            listed = "".join(f"\n  {name}: {error}" for name, error in outcome.failed.items())
            raise RunError(f"{len(outcome.failed)} failed; the same command tries again:{listed}")

    def study(self) -> "Study":
        """The study that these arguments ask for.

        Raises:
            ConfigError: a recipe, training or evaluation setting that cannot be used.
        """
        from ..compare.study import Study

        recipe = load_recipe(self.recipe) if self.recipe else {}
        training, evaluation = parse_assignments(self.set), parse_assignments(self.eval)
        _refuse(training, "--set", _ELSEWHERE)
        _refuse(evaluation, "--eval", _EVAL_ELSEWHERE)
        given: dict[str, Any] = {}
        if self.model is not None or "model" in recipe:
            given["model"] = self.model or recipe["model"]
        else:
            raise ConfigError("No model: give one with --model.")
        if self.data:
            given["data"] = self.data
        train = configure(CommonsenseTrainConfig, recipe, training, **given)
        plain = CommonsenseTrainConfig(model=train.model)  # cells have a method and a seed of their own
        rates = self.learning_rates or (train.learning_rate,)
        fixed = {"run": Path(), "data": self.tests, "benchmarks": self.benchmarks}
        return Study(
            train=dataclasses.replace(
                train,
                method=plain.method,
                match=self.baseline if self.match == "parameters" else "",
                seed=plain.seed,
                learning_rate=rates[0],
                train_fraction=1.0,
            ),
            evaluation=configure(CommonsenseEvalConfig, evaluation, **fixed),
            methods=self.methods,
            learning_rates=rates,
            seeds=self.seeds,
            train_fractions=self.train_fractions,
            baseline=self.baseline,
            validation_size=self.validation_size,
            split_seed=self.split_seed,
        )

    def line(self) -> str:
        """The command line, with its defaults, as it can be pasted."""
        words = ["moslora", "compare", "commonsense"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value not in (None, (), False):
                values = value if isinstance(value, tuple) else (value,)
                words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
        return shlex.join(words)

    def _estimate(self, study: "Study") -> None:
        from ..compare.grid import check_cells, method_config
        from ..compare.progress import duration, seconds_by_method, seconds_left
        from ..compare.results import latest_progress
        from ..tasks.commonsense.estimate import estimate

        check_cells(study)
        cells = study.cells()
        sizes = [len(getattr(study, name)) for name in ("methods", "learning_rates", "seeds", "train_fractions")]
        print("{} cells: {} methods x {} learning rates x {} seeds x {} train fractions".format(len(cells), *sizes))
        for method in study.methods:
            numbers = estimate(method_config(study, method))
            print(f"{method}: {numbers.trainable:,} trained parameters, {numbers.trainable / numbers.total:.4%}")
        past = latest_progress(self.out)
        done = {name for name, row in past.items() if row["status"] == "done"}
        waiting = [cell.method for cell in cells if cell.name not in done]
        left = seconds_left(waiting, seconds_by_method(past.values()), self.jobs)
        if left is None:
            print("no cell is done yet: run one (one method, learning rate and seed) to have the hours estimated")
        else:
            print(f"{len(waiting)} cells are left: about {duration(left)} with {self.jobs} at a time")


def print_statistics(statistics: dict[str, Any]) -> None:
    """Print a table of the arms, and the conclusions."""
    from rich.table import Table

    from ._console import wide_console

    table = Table()
    columns = (
        "method",
        "data",
        "rate",
        "parameters",
        "seeds",
        "validation",
        "test",
        "95 % interval",
        "difference",
        "p",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right")
    if base := statistics["base"]:
        table.add_row("(base model)", "", "", "0", "", "", f"{base['average']:.1%}", "", "", "", end_section=True)
    for arm in statistics["arms"]:
        interval, against = arm["average"]["interval"], arm["against_baseline"] or {}
        table.add_row(
            arm["method"],
            f"{arm['train_fraction']:.4g}",
            f"{arm['learning_rate']:g}",
            f"{arm['parameters']:,}",
            str(len(arm["seeds"])),
            _text(arm["validation"]["mean"], ".1%"),
            _text(arm["average"]["mean"], ".1%"),
            f"{interval[0]:.1%} to {interval[1]:.1%}" if interval else "-",
            f"{100 * against['difference']:+.1f}" if against else "",
            _text(against.get("p_holm"), ".3f") if against else "",
        )
    console = wide_console(160)
    console.print(table)
    for sentence in statistics["conclusions"]:
        console.print(f"- {sentence}", soft_wrap=True, highlight=False)


def _refuse(assignments: dict[str, Any], flag: str, elsewhere: dict[str, str]) -> None:
    wrong = [f"{key} is not a setting of {flag} here: use {elsewhere[key]}" for key in assignments if key in elsewhere]
    if wrong:
        raise ConfigError("The settings cannot be used:\n  " + "\n  ".join(wrong))


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
