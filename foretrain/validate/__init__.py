"""What really happened: published runs and how far predictions are from them."""
