"""One file a command: `add_arguments(parser)` and `run(options)`; heavy imports inside `run`."""
