"""Re-exports `medgan.inference.saved_model` for models that were registered under its old path."""

from medgan.inference.saved_model import load_translator as load_translator
