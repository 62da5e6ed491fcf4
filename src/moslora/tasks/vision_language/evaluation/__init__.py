"""Benchmarks for vision-language models: VLMEvalKit's TSV files in, the scores of the paper's Table 5 out."""
