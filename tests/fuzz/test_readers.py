"""Files of strangers are read, or refused in words; nothing crashes."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings

from moslora.errors import MoSLoRAError

from .readers import READERS, empty_folder

CASES = 60


@pytest.mark.parametrize("name", READERS)
def test_the_examples_are_valid(name):
    for content in READERS[name].seeds():
        with empty_folder() as folder:
            READERS[name].read(content, folder)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_words(name):
    reader = READERS[name]

    @settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(reader.damage(reader.seeds()))
    def test(content):
        with empty_folder() as folder, contextlib.suppress(MoSLoRAError):
            reader.read(content, folder)

    test()
