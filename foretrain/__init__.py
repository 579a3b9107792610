"""foretrain predicts what a training step of a large model costs before anyone rents the machines."""
