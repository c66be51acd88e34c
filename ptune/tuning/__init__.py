"""What all methods share: the training module, learning rates, saving, resuming."""
