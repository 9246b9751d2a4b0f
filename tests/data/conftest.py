from image_fixtures import make_series, phantoms, prepared, real  # noqa: F401
