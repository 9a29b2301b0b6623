"""From the bytes of a picture to the model's input tensor. Pillow does the work and releases the GIL while it does."""
