#!/usr/bin/env bash
# Trains in two processes.

. "$(dirname -- "$0")/set_env.sh"
CONFIG_FILE=config/config_train.json
ENVIRONMENT_FILE=config/environment.json

python3 -u -m torch.distributed.launch --nproc_per_node=2 --nnodes=1 --node_rank=0 \
    --master_addr="localhost" --master_port="${MASTER_PORT:-1234}" -m medl.apps.train \
    -m "$MMAR_ROOT" \
    -c "$CONFIG_FILE" \
    -e "$ENVIRONMENT_FILE" \
    --write_train_stats \
    --set \
    print_conf=True \
    epochs=2 \
    learning_rate=0.02 \
    num_interval_per_valid=1 \
    multi_gpu=True \
    dont_load_ckpt_model=True \
    ${additional_options}
