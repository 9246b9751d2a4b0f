"""Re-exports `medgan.inference.translator` for models that were registered under its old path."""

from medgan.inference.translator import translate_slices as translate_slices
