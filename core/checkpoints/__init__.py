"""What the files of models and LoRAs say, read without any model library."""
