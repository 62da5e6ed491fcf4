"""What the processes of a distributed run tell each other. In a run of one process, nothing."""

import torch


def joined() -> bool:
    """Whether this process is one of a group."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def wait_for_all() -> None:
    """Go on once all processes are here."""
    if joined():
        torch.distributed.barrier()


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; all of them must ask."""
    if not joined():
        return flag
    device = torch.accelerator.current_accelerator() if torch.distributed.get_backend() == "nccl" else "cpu"
    flags = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags)
