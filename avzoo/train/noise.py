"""Warnings of Lightning that help nobody who trains here; everything else is shown."""

from __future__ import annotations

NOISE = (
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning under torch 2.14
    r".*`srun` command is available.*",  # a cluster's login node; `avzoo submit` writes the job
    r".*`tensorboardX` has been removed.*",  # CSV is the logger here
    r".*in eval mode at the start of training.*",  # what a recipe freezes
    r".*does not have many workers.*",  # a batch is one index into memory
    r".*callbacks used to create the checkpoint need to be provided.*",  # a test keeps no checkpoints
    r".*WeightAveraging state cannot be restored.*",  # averaged weights are what a checkpoint holds
    r".*is not supported by the model summary.*",  # mixed precision: the size it prints is that of 32 bits
    r".*ended before the epoch ended and your dataloader is not resumable.*",  # it finds its place, see Shares
    r".*directory .* exists and is not empty.*",  # a run that goes on
    r".*smaller than the logging interval.*",  # the log has one row an epoch
)
