"""One process of a training run that may be killed, under FSDP2 also on a CPU.

    torchrun ... engine_process.py ENGINE STOP train commonsense ...

The process ends at once when the checkpoint of step STOP is complete, as if it had been killed; 0 lets it finish.
accelerate uses FSDP2 on GPUs only. For the engine `fsdp2` its state is told that gloo's processes are such: all code
of Trainer, accelerate and torch behind that choice is then the same as on a GPU.
"""

import os
import sys

import torch
from accelerate import state
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

from moslora.cli import main
from moslora.tasks import launch, trainer

engine, stop = sys.argv[1], int(sys.argv[2])
completed, prepared = trainer.RunCallback.on_save, state.AcceleratorState.__init__


def on_save(self, args, state, control, model=None, **rest):
    completed(self, args, state, control, **rest)
    if engine == "fsdp2":
        assert all(isinstance(each, DTensor) for each in model.parameters()), "not sharded"
    die_after(state.global_step)


def die_after(step):
    if step == stop:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        os._exit(9)


def die_in_loop(loop):
    """The same for the diffusion task's own loop."""
    save = loop._save

    def save_and_die(self, done):
        save(self, done)
        if engine == "fsdp2":
            frozen = [each for each in self.objective.pipeline.unet.parameters() if not each.requires_grad]
            assert all(isinstance(each, DTensor) for each in frozen), "not sharded"
            assert not any(isinstance(each, DTensor) for each in self.parameters.values()), "adapters are whole"
        die_after(done)

    loop._save = save_and_die


def use_fsdp2(self, *args, fsdp_plugin=None, **settings):
    prepared(self, *args, fsdp_plugin=fsdp_plugin, **settings)
    if self.distributed_type in (DistributedType.MULTI_CPU, DistributedType.NO):
        self.fsdp_plugin = fsdp_plugin or FullyShardedDataParallelPlugin()
        self.distributed_type = state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


trainer.RunCallback.on_save = on_save
if engine == "fsdp2":
    state.AcceleratorState.__init__ = use_fsdp2
    launch._check_fsdp = lambda deepspeed: None
if "subject" in sys.argv:
    from moslora.tasks.subject.loop import Loop

    die_in_loop(Loop)
sys.exit(main(sys.argv[3:]))
