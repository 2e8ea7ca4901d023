#!/usr/bin/env bash
# Sourced by the other commands: says where this MMAR lies, and where code of its own would.
# It changes no option of the shell that sources it.

MMAR_ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export MMAR_ROOT

# Appended, so that nothing in custom/ can take the place of an installed package.
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$MMAR_ROOT/custom"
