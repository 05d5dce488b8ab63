"""Features of several sensors to one latent vector."""
