"""The methods that can be trained and compared, each under one name: how to build it, start it and optimise it."""

from .allocation import AllocateRanks, allocates_ranks, share_penalty
from .attach import attach, create_optimizer, trained_parameters
from .match import matched_rank, parameters_at
from .zoo import FILE, FULL, METHODS, find_method, peft_config

__all__ = [
    "FILE",
    "FULL",
    "METHODS",
    "AllocateRanks",
    "allocates_ranks",
    "attach",
    "create_optimizer",
    "find_method",
    "matched_rank",
    "parameters_at",
    "peft_config",
    "share_penalty",
    "trained_parameters",
]
