"""Subject-driven generation: pictures of one subject in new settings."""
