"""Pictures of what a run, a model or a search gives."""
