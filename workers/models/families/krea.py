"""Krea 2."""

from workers.models.family import FAMILIES, Family

FAMILIES.add("Krea2", Family(guidance="offset"))
