"""What the words mean: frozen values without I/O, and their wire forms beside them."""
