"""MoSLoRA inside what people use PEFT with: transformers, diffusers, TRL, torch.compile, checkpointing, optimisers."""

import copy
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from peft.optimizers import create_lorafa_optimizer as create_plain_lorafa_optimizer
from peft.optimizers import create_loraplus_optimizer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from moslora import MosLoraConfig, UnsupportedError, create_lorafa_optimizer, to_lora
from tests.adapter.architectures import TRANSFORMERS, sdxl_unet, unet_inputs, words
from tests.helpers import randomize_adapters, relative_difference, tiny_llama

SETTINGS: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}
MIXERS = ["learnable", "butterfly"]


def adapted(mixer: str = "learnable", **settings: Any) -> PeftModel:
    model = get_peft_model(tiny_llama(), MosLoraConfig(mixer=mixer, **(SETTINGS | settings)))
    randomize_adapters(model)
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(words()).logits


def loss_and_gradients(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(input_ids=words(), labels=words()).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mixer", MIXERS)
def test_transformers_adds_saves_and_loads_an_adapter(mixer, tmp_path):
    model = tiny_llama()
    model.add_adapter(MosLoraConfig(mixer=mixer, **SETTINGS), adapter_name="mine")
    randomize_adapters(model)
    expected = logits(model)
    model.disable_adapters()
    assert torch.equal(logits(model), logits(tiny_llama()))
    model.enable_adapters()
    model.save_pretrained(tmp_path)

    loaded = tiny_llama()
    report = loaded.load_adapter(tmp_path, adapter_name="again")
    assert not report.missing_keys
    assert not report.unexpected_keys
    assert torch.equal(logits(loaded), expected)
    wrapped = PeftModel.from_pretrained(tiny_llama(), tmp_path).eval()
    assert torch.equal(logits(wrapped), expected)


def test_transformers_loads_the_experts_of_a_mixture(tmp_path):
    mixtral = TRANSFORMERS["mixtral"]
    torch.manual_seed(0)
    base = mixtral.build().eval()
    model = get_peft_model(copy.deepcopy(base), MosLoraConfig(r=2, **mixtral.config)).eval()
    randomize_adapters(model, std=0.1)
    model.save_pretrained(tmp_path)
    base.load_adapter(tmp_path)
    assert torch.equal(logits(base), logits(model))


def test_transformers_switches_between_adapters_and_deletes_one():
    model = tiny_llama()
    model.add_adapter(MosLoraConfig(**SETTINGS), adapter_name="one")
    model.add_adapter(MosLoraConfig(mixer="butterfly", **SETTINGS), adapter_name="two")
    randomize_adapters(model)
    model.set_adapter("one")
    one = logits(model)
    model.set_adapter("two")
    assert not torch.equal(logits(model), one)
    model.delete_adapter("two")
    model.set_adapter("one")
    assert torch.equal(logits(model), one)
    assert not [n for n in model.state_dict() if ".two" in n]


def test_diffusers_scales_switches_off_and_deletes_adapters():
    unet, inputs = sdxl_unet(), unet_inputs()

    def output() -> Tensor:
        with torch.no_grad():
            return unet(**inputs).sample

    plain = output()
    settings = {"r": 4, "target_modules": ["to_q", "to_out.0", "conv1"]}
    unet.add_adapter(MosLoraConfig(**settings), adapter_name="one")
    unet.add_adapter(MosLoraConfig(mixer="butterfly", **settings), adapter_name="two")
    randomize_adapters(unet, std=0.1)
    unet.set_adapters(["one"])
    one = output()
    assert relative_difference(one, plain) > 1e-3
    unet.set_adapters(["one", "two"], [1.0, 0.5])
    both = output()
    assert relative_difference(both, one) > 1e-3
    unet.set_adapters(["one", "two"], [1.0, 0.0])
    assert relative_difference(output(), one) < 1e-6
    unet.disable_adapters()
    assert torch.equal(output(), plain)
    unet.enable_adapters()
    unet.set_adapters(["one", "two"], [1.0, 0.5])
    unet.fuse_lora()
    assert relative_difference(output(), both) < 1e-5
    unet.unfuse_lora()
    unet.delete_adapters("two")
    unet.set_adapters(["one"])
    assert relative_difference(output(), one) < 1e-5


def test_diffusers_refuses_the_unfolded_file(tmp_path):
    unet = sdxl_unet()
    unet.add_adapter(MosLoraConfig(r=4, target_modules=["to_q"]))
    unet.save_lora_adapter(tmp_path)
    again = sdxl_unet()
    with pytest.raises(TypeError, match="LoraConfig"):
        again.load_lora_adapter(tmp_path, prefix=None, use_safetensors=True)


def test_trl_trains_saves_and_the_adapter_comes_back(tmp_path):
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    vocabulary = {f"w{i}": i for i in range(64)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0")), eos_token="w1", pad_token="w2"
    )
    rows = Dataset.from_dict({"input_ids": words((8, 9)).tolist()})
    settings = SFTConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    config = MosLoraConfig(**SETTINGS, task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=tiny_llama(), args=settings, train_dataset=rows, processing_class=tokenizer, peft_config=config
    )
    before = {n: p.clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert any(n.endswith("mixer") for n in before)
    assert not [n for n in before if torch.equal(before[n], after[n])], "a trained parameter did not move"
    trainer.save_model(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path / "adapter").eval()
    assert torch.equal(logits(loaded), logits(trainer.model.eval()))


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_compiled_model_has_the_loss_and_gradients_of_the_eager_one(mixer):
    model = adapted(mixer).train()
    loss, gradients = loss_and_gradients(model)
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager")
    compiled_loss, compiled_gradients = loss_and_gradients(compiled)
    torch.testing.assert_close(compiled_loss, loss)
    assert len(compiled_gradients) == len(gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled_gradients[f"_orig_mod.{name}"], gradient)


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_layer_compiles_without_graph_breaks(mixer):
    config = MosLoraConfig(r=4, target_modules=["0", "2"], mixer=mixer)
    model = get_peft_model(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Conv1d(3, 4, 3)), config)
    randomize_adapters(model)
    x = torch.randn(2, 3, 6)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.slow
def test_inductor_computes_what_eager_does():
    model = adapted()
    loss, gradients = loss_and_gradients(model)
    compiled_loss, compiled_gradients = loss_and_gradients(torch.compile(copy.deepcopy(model)))
    torch.testing.assert_close(compiled_loss, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled_gradients[f"_orig_mod.{name}"], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("mixer", MIXERS)
def test_gradient_checkpointing_changes_no_gradient(mixer, use_reentrant):
    model = adapted(mixer).train()
    loss, gradients = loss_and_gradients(model)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    assert model.is_gradient_checkpointing
    again, recomputed = loss_and_gradients(model)
    assert torch.equal(again, loss)
    assert recomputed.keys() == gradients.keys()
    assert all(torch.equal(recomputed[name], gradients[name]) for name in gradients)


def test_an_adapter_is_injected_into_a_plain_module():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(4, 6)
    plain = module(x)
    config = MosLoraConfig(r=2, target_modules=["0", "2"])
    injected = inject_adapter_in_model(config, copy.deepcopy(module))
    assert type(injected) is nn.Sequential
    assert torch.equal(injected(x), plain)
    randomize_adapters(injected)
    saved = get_peft_model_state_dict(injected)
    assert {key.split(".", 1)[1] for key in saved} == {"lora_A.raw", "lora_A.mixer", "lora_B.weight"}
    again = inject_adapter_in_model(config, copy.deepcopy(module))
    assert not set_peft_model_state_dict(again, saved).unexpected_keys
    assert torch.equal(again(x), injected(x))
    assert not torch.equal(again(x), plain)


def test_loraplus_trains_the_mixer_at_the_rate_of_A():
    model = adapted()
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = {n: rate[id(p)] for n, p in model.named_parameters() if p.requires_grad}
    assert {v for n, v in rates.items() if n.endswith((".raw", ".mixer"))} == {1e-3}
    assert {v for n, v in rates.items() if ".lora_B." in n} == {1.6e-2}
    before = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
    model(words()).logits.square().mean().backward()
    optimizer.step()
    assert not [n for n, p in model.named_parameters() if n in before and torch.equal(p, before[n])]


@pytest.mark.parametrize("mixer", MIXERS)
def test_lorafa_trains_B_as_for_the_exported_lora_and_nothing_else(mixer):
    model = adapted(mixer, lora_alpha=8)
    exported = to_lora(copy.deepcopy(model))
    before = {n: p.clone() for n, p in model.named_parameters()}
    settings = {"r": 4, "lora_alpha": 8, "lr": 1e-2, "weight_decay": 0.1}
    ours = create_lorafa_optimizer(model, **settings)
    theirs = create_plain_lorafa_optimizer(exported, **settings)
    for _ in range(3):
        for each, optimizer in ((model, ours), (exported, theirs)):
            each(words()).logits.square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n in before if ".lora_B." in n}
    plain = dict(exported.named_parameters())
    for name in moved:
        torch.testing.assert_close(dict(model.named_parameters())[name], plain[name], atol=1e-6, rtol=1e-5)


def test_lorafa_refuses_the_mixer_of_an_embedding():
    model = adapted(target_modules=["embed_tokens"])
    with pytest.raises(UnsupportedError, match="mixer of an embedding"):
        create_lorafa_optimizer(model, r=4, lora_alpha=8, lr=1e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mixer", MIXERS)
def test_cuda_computes_what_the_cpu_does(mixer):
    model = adapted(mixer)
    loss, gradients = loss_and_gradients(model)
    cuda = copy.deepcopy(model).cuda()
    cuda.zero_grad()
    cuda_loss = cuda(input_ids=words().cuda(), labels=words().cuda()).loss
    cuda_loss.backward()
    torch.testing.assert_close(cuda_loss.cpu().detach(), loss)
    for name, parameter in cuda.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad.cpu(), gradients[name], atol=1e-5, rtol=1e-4)
