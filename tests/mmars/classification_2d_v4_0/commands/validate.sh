#!/usr/bin/env bash
# Validates the TorchScript model.

. "$(dirname -- "$0")/set_env.sh"
CONFIG_FILE=config/config_validation.json
ENVIRONMENT_FILE=config/environment.json

python3 -u -m medl.apps.evaluate \
    -m "$MMAR_ROOT" \
    -c "$CONFIG_FILE" \
    -e "$ENVIRONMENT_FILE" \
    --set \
    print_conf=True \
    multi_gpu=False \
    dont_load_ts_model=False \
    dont_load_ckpt_model=True \
    ${additional_options}
