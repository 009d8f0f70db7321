"""Reading and writing of images, and synthetic scenes."""
