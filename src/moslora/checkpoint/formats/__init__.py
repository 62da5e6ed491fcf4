"""One module per file format of plain LoRA; each writes a folded adapter and reads its delta W back."""
