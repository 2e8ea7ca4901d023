"""A site's work in several processes, one for each GPU; each process has a rank, from 0."""
