"""MedGAN: find, compare, promote and deploy medical image translation networks."""

__version__ = "0.1.0"
