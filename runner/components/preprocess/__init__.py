"""From raw pixels to the model's input: statistics of the training split, kept in buffers."""
