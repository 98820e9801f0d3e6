"""Weights on disk: safetensors and JSON, read strictly; nothing in a file is ever executed."""
