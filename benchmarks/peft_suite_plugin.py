"""Pytest plugin of `peft_suite.py`: runs a suite written for LoraConfig with MosLoraConfig, and records outcomes.

Environment:
    PEFT_SUITE_SIDE: "stock" leaves PEFT alone, "moslora" puts MosLoraConfig in the place of LoraConfig, "identity" the
        same with mixer="identity".
    PEFT_SUITE_OUTCOMES: file that gets one JSON object per test: id, outcome, whether it built a LoraConfig, message.
    PEFT_SUITE_IDS: file with the ids to run, one per line; all that concern LoRA when unset.
"""

import dataclasses
import importlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest

LAST_LINE_CHARACTERS = 300
_builds_lora = False
_outcomes: dict[str, dict[str, Any]] = {}


def pytest_configure(config: pytest.Config) -> None:
    side = os.environ["PEFT_SUITE_SIDE"]
    if side == "stock":
        _watch(peft.LoraConfig)
    else:
        for module in (peft, peft.tuners, peft.tuners.lora):
            module.LoraConfig = _config_class(side)
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        _stay_offline()


def _config_class(side: str) -> type:
    from moslora import MosLoraConfig

    if side == "moslora":
        return MosLoraConfig
    return dataclasses.make_dataclass(
        "MosLoraConfig", [("mixer", str, dataclasses.field(default="identity"))], bases=(MosLoraConfig,)
    )


class _Everything(defaultdict[str, int]):
    """A cache that claims to know each model already."""

    def __contains__(self, key: object) -> bool:
        return True


def _stay_offline() -> None:
    # The suite goes online, with retries that take half a minute, for every model that it has not seen before.
    testing_utils = importlib.import_module("tests.testing_utils")
    testing_utils._HUB_MODEL_ACCESSES = _Everything(int)


def _watch(config_class: type) -> None:
    """Note when the running test builds a config of exactly this class."""
    post_init = config_class.__post_init__

    def noting_post_init(self: Any) -> None:
        global _builds_lora
        _builds_lora = _builds_lora or type(self) is config_class
        post_init(self)

    config_class.__post_init__ = noting_post_init


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = os.environ.get("PEFT_SUITE_IDS")
    ids = set(Path(wanted).read_text(encoding="utf-8").splitlines()) if wanted else None
    kept = [item for item in items if (_stock_id(item.nodeid) in ids if ids is not None else _may_concern_lora(item))]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def _stock_id(node_id: str) -> str:
    """The id of a test on the stock side: parametrised ids are made from the name of the config class."""
    return node_id.replace("MosLora", "Lora")


def _may_concern_lora(item: pytest.Item) -> bool:
    """Whether no parameter of the test is the config class of another method."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    configs = {value for value in parameters if isinstance(value, type) and issubclass(value, peft.PeftConfig)}
    return not configs or peft.LoraConfig in configs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global _builds_lora
    _builds_lora = False
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    report.user_properties = [*item.user_properties, ("builds_lora", _builds_lora)]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = _stock_id(report.nodeid)
    test = _outcomes.setdefault(name, {"id": name, "outcome": "passed", "message": ""})
    test["builds_lora"] = dict(report.user_properties).get("builds_lora", False)
    if report.outcome != "passed" and test["outcome"] != "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        test["outcome"] = report.outcome
        test["message"] = (crash.message if crash else str(report.longrepr))[:LAST_LINE_CHARACTERS]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # not a worker of xdist
        lines = [json.dumps(test) + "\n" for _, test in sorted(_outcomes.items())]
        Path(os.environ["PEFT_SUITE_OUTCOMES"]).write_text("".join(lines), encoding="utf-8")
