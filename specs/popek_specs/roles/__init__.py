"""What each part of a machine's state is for, read off the manuals: stated once more, apart from the models."""
