"""A resolved configuration becomes objects of torch, MONAI, ignite and the MMAR's own code."""
