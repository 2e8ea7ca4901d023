#!/usr/bin/env bash
# Sourced by the other commands: where this MMAR lies, and where its own code does.

MMAR_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export MMAR_ROOT
export PYTHONPATH="${PYTHONPATH:-}:/opt/nvidia:$MMAR_ROOT/custom"
