"""Cosmos 2; it runs the second pass only if its guidance is above 1."""

from workers.models.family import FAMILIES, Family

FAMILIES.add("Cosmos2", Family(guidance="offset"))
