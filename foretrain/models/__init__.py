"""What a model asks for: ops, blocks, models, and the builders that make them."""
