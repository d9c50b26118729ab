"""The momentum core: averages of weights now, optimizers later (torch only)."""
