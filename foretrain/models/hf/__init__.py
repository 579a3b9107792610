"""Models from Hugging Face configurations: fields of a config.json, read by name; nothing in a file is executed."""
