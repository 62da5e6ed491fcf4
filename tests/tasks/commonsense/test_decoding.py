"""Our beam search, which ends early, against that of transformers, which does not."""

import random

import pytest
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from moslora.errors import UnsupportedError
from moslora.tasks.commonsense.branches import read_prefix, require_branches
from moslora.tasks.commonsense.decoding import search
from moslora.tasks.commonsense.score import extract_answer, settled_answer

LETTERS = "abcdefghijklmn"


class Spelling:
    """As much of a tokenizer as the search needs: a letter a token; token 0 ends a text."""

    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        return ["".join(LETTERS[token - 1] for token in row if token) for row in rows]


def _random_model(kind: str = "llama", seed: int = 0) -> torch.nn.Module:
    """A model whose large random weights make it write varied text that ends now and then."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shared = {"vocab_size": len(LETTERS) + 1, "initializer_range": 0.35, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **shared)
        return GPT2LMHeadModel(config).double().eval()
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(num_key_value_heads=2, **sizes, **shared)).double().eval()
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **sizes, **shared)).double().eval()


def _prompts(count: int, seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [draw.choices(range(1, len(LETTERS) + 1), k=draw.randint(1, 9)) for _ in range(count)]


def _whole(model, prompt: list[int], beams: int, stops=(0,)) -> list[int]:
    """What transformers generates for one prompt alone."""
    ids = torch.tensor([prompt])
    settings = {"num_beams": beams, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=list(stops), **settings)
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2"])
def test_without_answer_words_the_text_is_that_of_transformers(kind, beams):
    model, tokenizer = _random_model(kind), Spelling()
    prompts = _prompts(16, seed=1)
    prompts = [[5, 6, *prompt] for prompt in prompts]
    prefix = read_prefix(model, prompts)
    assert prefix.length == 2
    found = search(model, tokenizer, prompts, ["?"], [0], beams=beams, max_new_tokens=12, prefix=prefix)
    assert found == search(model, tokenizer, prompts, ["?"], [0], beams=beams, max_new_tokens=12)
    expected = tokenizer.batch_decode([_whole(model, prompt, beams) for prompt in prompts], True)
    assert found == expected
    assert any(len(text) < 12 for text in expected)  # some end by themselves, others at the limit
    assert any(len(text) == 12 for text in expected)


@pytest.mark.parametrize("beams", [1, 4])
def test_ending_early_never_changes_the_answer(beams):
    tokenizer, asked, cut, answered = Spelling(), 0, 0, 0
    for seed in range(6):
        model, draw = _random_model(seed=seed), random.Random(seed)
        words = ["".join(draw.choices(LETTERS, k=draw.randint(1, 3))) for _ in range(4)]
        prompts = _prompts(16, seed)
        found = search(model, tokenizer, prompts, words, [0, 3], beams=beams, max_new_tokens=12)
        for prompt, early in zip(prompts, found, strict=True):
            whole = tokenizer.batch_decode([_whole(model, prompt, beams, stops=(0, 3))], True)[0]
            assert extract_answer(early, words) == extract_answer(whole, words), (seed, prompt, words, early, whole)
            asked, cut = asked + 1, cut + (len(early) < len(whole))
            answered += bool(extract_answer(whole, words))
    assert asked == 96
    assert answered > 20
    assert cut > 10


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_a_model_that_cannot_follow_branches_is_refused(kind):
    if kind == "bloom":  # its positions follow from the mask
        model = transformers.BloomForCausalLM(
            transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)
        )
    else:
        model = transformers.MambaForCausalLM(
            transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
        )
    with pytest.raises(UnsupportedError, match="no-early-stop"):
        require_branches(model.eval())


def test_a_text_longer_than_a_sliding_window_is_refused():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = MistralForCausalLM(MistralConfig(vocab_size=15, num_key_value_heads=2, sliding_window=32, **sizes)).eval()
    settings = {"beams": 2, "max_new_tokens": 8}
    require_branches(model)
    assert search(model, Spelling(), [[1, 2, 3]], ["?"], [0], **settings)
    with pytest.raises(UnsupportedError, match=r"32 tokens back.*no-early-stop"):
        search(model, Spelling(), [3 * list(range(1, 13))], ["?"], [0], **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_models_with_a_plain_cache_are_accepted(dtype):
    for kind in ("llama", "mistral", "gpt2"):
        require_branches(_random_model(kind).to(dtype))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("the correct answer is answer", ""),
        ("the correct answer is answer1", ""),  # may become answer12
        ("the correct answer is answer1.", "answer1"),
        ("the correct answer is answer12", "answer12"),
        ("answer2", "answer2"),
        ("not an", ""),
        ("answer2 or an", "answer2"),
    ],
)
def test_an_answer_is_settled_once_no_continuation_can_change_it(output, expected):
    assert settled_answer(output, ("answer1", "answer2", "answer12", "an answer")) == expected


def test_a_settled_answer_is_that_of_every_continuation():
    draw = random.Random(0)
    settled = 0
    for _ in range(3000):
        words = ["".join(draw.choices("ab ", k=draw.randint(1, 4))) for _ in range(3)]
        text = "".join(draw.choices("ab ", k=12))
        for length in range(13):
            if answer := settled_answer(text[:length], words):
                settled += 1
                assert extract_answer(text, words) == answer
    assert settled > 1000
