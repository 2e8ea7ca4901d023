"""The corpus: one module for each family of hostile cases, and the benign ones."""
