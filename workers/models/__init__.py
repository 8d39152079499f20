"""One file per model family, behind `base.ModelFamily` and `registry.create_family`."""
