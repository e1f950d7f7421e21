"""Makes the starter model and the demo gallery: rendering, captions, training, evaluation."""
