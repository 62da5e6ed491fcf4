"""A language model that transformers does not know runs only when its code is trusted."""

import json
import subprocess
import sys

import pytest
import torch
import transformers

from moslora.errors import ConfigError
from moslora.tasks.vision_language.model import load_base, load_config

from .conftest import write_llava

CONFIG_CODE = """
from transformers import LlamaConfig

class StrangeConfig(LlamaConfig):
    model_type = "strange"
"""
MODEL_CODE = """
from transformers import LlamaModel

from .configuration_strange import StrangeConfig

class StrangeModel(LlamaModel):
    config_class = StrangeConfig
"""


@pytest.fixture
def strange(tmp_path):
    """A LLaVA whose language model is Llama under another name, with code of its own."""
    folder = tmp_path / "strange"
    folder.mkdir()
    write_llava(folder)
    (folder / "configuration_strange.py").write_text(CONFIG_CODE)
    (folder / "modeling_strange.py").write_text(MODEL_CODE)
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "configuration_strange.StrangeConfig", "AutoModel": "modeling_strange.StrangeModel"}
    config["text_config"] |= {"model_type": "strange", "auto_map": code}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_foreign_code_is_refused_with_a_word_on_internlm(strange):
    for load in (lambda: load_config(str(strange)), lambda: load_base(str(strange), torch.float32)):
        with pytest.raises(ConfigError, match=r"kind strange.*--trust-remote-code.*InternLM3 is part"):
            load()


def test_trusted_code_is_the_language_model_and_gets_its_adapter(strange):
    plain = json.loads((strange / "config.json").read_text())
    plain["text_config"]["model_type"] = "llama"
    script = (
        "import sys, torch\n"
        "from moslora.tasks.vision_language.model import load_base, load_config\n"
        "from moslora.tasks.vision_language.config import VisionLanguageTrainConfig\n"
        "from moslora.tasks.vision_language.train import load_adapted\n"
        "load_config(sys.argv[1], trust_remote_code=True)\n"
        "config = VisionLanguageTrainConfig(model=sys.argv[1], data=('any',), rank=2, trust_remote_code=True)\n"
        "model = load_adapted(config)\n"
        "print(type(model.get_base_model().model.language_model).__name__)\n"
        "tokens = torch.arange(9, 20)[None]\n"
        "torch.save(model.eval()(input_ids=tokens).logits, sys.argv[2])"
    )
    # In a process of its own: what transformers is told of, it keeps.
    command = [sys.executable, "-W", "ignore", "-c", script, str(strange), str(strange / "logits.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "StrangeModel"
    (strange / "config.json").write_text(json.dumps(plain))
    llava = transformers.LlavaForConditionalGeneration.from_pretrained(strange)
    with torch.no_grad():
        expected = llava(input_ids=torch.arange(9, 20)[None]).logits
    torch.testing.assert_close(torch.load(strange / "logits.pt"), expected)
