"""Finds, compares, promotes and deploys medical image translation networks."""

__version__ = "0.1.0"
