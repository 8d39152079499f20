"""A page of all pictures of an output folder, made from its record; and what the record tells."""
