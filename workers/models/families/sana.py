"""SANA-Sprint, which is distilled."""

from workers.models.family import FAMILIES, Family

FAMILIES.add("SanaSprintPipeline", Family(guidance="distilled"))
