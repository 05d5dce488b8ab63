"""Latent vector to action: policies, their training and their checkpoints."""
