"""Enhancement of images of any size and bit depth."""
