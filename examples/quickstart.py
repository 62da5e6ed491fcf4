"""MoSLoRA in plain PyTorch and PEFT: attach it, train it, leave it as a plain LoRA.

    python examples/quickstart.py my-lora

Runs in seconds on a CPU, with the small model that comes with the package.
"""

import sys

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import moslora
from moslora.embedded import model_folder

torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(model_folder())
base = AutoModelForCausalLM.from_pretrained(model_folder(), dtype="float32")
model = get_peft_model(base, moslora.MosLoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
model.print_trainable_parameters()

text = tokenizer("The anchor is green. The boat is green. The axe is green.", return_tensors="pt")  # news to the model
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
for step in range(20):
    loss = model(**text, labels=text["input_ids"]).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 5 == 4:
        print(f"step {step:2d}  loss {loss.item():.3f}")

moslora.to_lora(model).save_pretrained(sys.argv[1])
print(f"Plain LoRA of the same rank and function: {sys.argv[1]}")
