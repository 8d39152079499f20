"""Files that every folder of a model has: of a pipeline of parts, or of a single model."""

PIPELINE_INDEX = "model_index.json"
MODEL_INDEX = "config.json"
