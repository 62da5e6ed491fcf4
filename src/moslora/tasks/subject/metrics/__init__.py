"""How like its subject, how true to its prompt and how varied generated pictures are: docs/subject-metrics.md."""
