"""Code that is copied into the projector/ folder of XTuner's layout, so that AutoModel loads it without XTuner."""
