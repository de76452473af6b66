"""What commands there are. One file each: `add_arguments(parser)` and `run(options)`; heavy imports inside `run`."""

TRAINING = {  # by LightningCLI, see `avzoo.training`
    "fit": "train a model from a recipe",
    "validate": "measure a checkpoint on validation",
    "test": "measure a checkpoint on test",
    "extract": "bring a recipe's frozen features into the cache",
    "shard": "pack a recipe's clips, frames or features into tar shards",
    "lr": "find a learning rate for a recipe",
}
COMMANDS = {
    "demo": "render a clip, localize its event, save the picture",
    "predict": "say what happens in videos, and when",
    "merge": "the answers of all parts of a `predict --part` as one file",
    "list": "the models there are",
    "info": "what a model is, what was measured, who vouches for its weights",
    "load": "fetch and verify a model, print where it lies",
    "verify": "compare a model's files and golden outputs with what was published",
    "cache": "the models from the Hugging Face Hub on this machine, and how to be rid of them",
    "check": "look through one's own clips for what would spoil a training",
    "finetune": "train a model on one's own clips, from one that is trained",
    "app": "a page on this machine: drop a video, see what happens in it, and why",
    "embed": "write what a model makes of clips: embeddings as a table and as a map",
    "export": "write a model for other runtimes (ONNX)",
    "recipe": "print a recipe to start from",
    "submit": "write a training as a job for Slurm, and submit it",
    "synth": "render a small dataset of videos with sound",
    "publish": "make a bundle of a trained checkpoint, bring it to the Hugging Face Hub",
}
