"""Visual instruction tuning of LLaVA-shaped models: training, evaluation and what comes after."""
