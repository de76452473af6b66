"""What surrounds a training run: a folder of its own, exact resumption, signals, one batch over many processes."""
