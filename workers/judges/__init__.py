"""One file per way of judging, behind `workers.models.base.ModelFamily` and one registry."""
