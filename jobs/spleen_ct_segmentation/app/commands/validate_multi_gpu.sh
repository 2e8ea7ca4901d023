#!/usr/bin/env bash
# Validates the TorchScript model MMAR_TORCHSCRIPT (models/model.ts).
# Runs in several processes on this machine, one for each GPU: the variable processes says how many.
# Values to change, as NAME=VALUE: behind the command, or in the variable additional_options.

set -euf -o pipefail # f: no word of additional_options is taken for a file pattern
. "$(dirname -- "${BASH_SOURCE[0]}")/set_env.sh"
additional_options=${additional_options:-}
processes=${processes:-2}

# Without quotes, because additional_options is a list of words.
# shellcheck disable=SC2086
exec python3 -u -m torch.distributed.run --standalone --nproc_per_node="$processes" \
    -m medl.apps.evaluate \
    -m "$MMAR_ROOT" \
    -c config/config_validation.json \
    -e config/environment.json \
    --set dont_load_ts_model=False dont_load_ckpt_model=True multi_gpu=True ${additional_options} "$@"
