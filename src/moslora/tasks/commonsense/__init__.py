"""Commonsense reasoning: fine-tune a causal language model on LLM-Adapters' questions, generate answers, score them."""
