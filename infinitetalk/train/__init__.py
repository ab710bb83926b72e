"""Training of the small generator: autoencoder, speech encoder, transformer; by torch, NumPy and safetensors alone."""
