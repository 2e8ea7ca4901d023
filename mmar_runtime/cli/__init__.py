"""The commands of one site: parse arguments, print, choose exit codes; no decisions."""
