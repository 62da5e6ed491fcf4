"""Files of strangers are read, or refused in words; nothing crashes."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings

from moslora.errors import MoSLoRAError

from .readers import READERS, empty_folder

CASES = 60

# What once ended in another error than the package's own.
FOUND = (
    (
        "adapter config",
        b'{"peft_type": "MOSLORA", "r": 4, "lora_alpha": 4, "mixer": "learnable", "rank_pattern": true}',
    ),
    ("index of shards", b'{"metadata": {}}'),
    ("index of shards", b"[" * 2000),
    ("model config", b'{"model_type": "vit", "architectures": -4, "hidden_size": 8, "num_attention_heads": 2}'),
    ("model config", b'{"model_type": "llama", "architectures": ["logging"]}'),
    ("method file", b'{"peft_type": [[]], "r": 8}'),
    ("method file", b'{"peft_type": "LOHA", "alpha": ' + b"[" * 2000),
    ("questions, JSON", b"[" * 2000),
    ("conversations, JSON", b"[" * 2000),
    ("conversations, JSON", b'[{"image": "a\\u0000", "conversations": []}]'),
    ("conversations, JSON lines", b"[" * 2000),
    ("picture", b"II*\0\x08\0\0\0\x01\0\x01\x01\x04\0\x01\0\0\0\t\0\0\0\0\0\0\0"),
    ("picture of a subject", b"II*\0\x08\0\0\0\x01\0\x01\x01\x04\0\x01\0\0\0\t\0\0\0\0\0\0\0"),
    ("list of pictures", b'{"file": "\\ud800", "prompt_index": 0, "prompt": "a", "seed": 0}\n'),
    ("list of pictures", b'{"file": "' + b"a" * 5000 + b'", "prompt_index": 0, "prompt": "a", "seed": 0}\n'),
    ("list of pictures", b'{"file": "0.png", "prompt_index": Infinity, "prompt": "a", "seed": 0}\n'),
    ("list of pictures", b"[" * 2000 + b"\n"),
)


@pytest.mark.parametrize("name", READERS)
def test_the_examples_are_valid(name):
    for content in READERS[name].seeds():
        with empty_folder() as folder:
            READERS[name].read(content, folder)


@pytest.mark.parametrize(("name", "content"), FOUND)
def test_what_was_found_once_is_refused_in_words(name, content):
    with empty_folder() as folder, pytest.raises(MoSLoRAError, match=r"\S"):
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
