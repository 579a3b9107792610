"""Convolutional networks, one family a file: its dimensions, and the model that they make."""
