#!/usr/bin/env bash
# Predictions of the checkpoint for the list of test images.

. "$(dirname -- "$0")/set_env.sh"
CONFIG_FILE=config/config_inference.json
ENVIRONMENT_FILE=config/environment.json

python3 -u -m medl.apps.evaluate \
    -m "$MMAR_ROOT" \
    -c "$CONFIG_FILE" \
    -e "$ENVIRONMENT_FILE" \
    --set \
    print_conf=True \
    multi_gpu=False \
    dont_load_ts_model=True \
    dont_load_ckpt_model=False \
    ${additional_options}
