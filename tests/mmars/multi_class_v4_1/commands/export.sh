#!/usr/bin/env bash
# Writes the checkpoint as TorchScript.

. "$(dirname -- "$0")/set_env.sh"
CONFIG_FILE=config/config_train.json
ENVIRONMENT_FILE=config/environment.json

python3 -u -m medl.apps.export \
    -m "$MMAR_ROOT" \
    -c "$CONFIG_FILE" \
    -e "$ENVIRONMENT_FILE" \
    --model_path "$MMAR_ROOT/models/model.pt" \
    --output_path "$MMAR_ROOT/models/model.ts" \
    --input_shape "[1, 1, 16, 16, 16]"
