"""The parts of NVFlare that this project uses and that NVFlare does not promise to keep.

Everything else comes from NVFlare's public API: components, events, ``FLContext``, ``Shareable``,
``DXO``, ``Controller`` and ``Executor``. A new version that changes an entry fails
``tests/mmar_runtime/flare/test_internals.py`` by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CALLS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        # Server: tasks, updates in files, and freed memory (fl_server.flare)
        "nvflare.apis.impl.wf_comm_server": {"WFCommServer.check_tasks": ""},
        "nvflare.apis.utils.task_utils": {
            "get_filters": "filters_name fl_ctx config_filters task_name direction"
        },
        "nvflare.private.fed.server.server_runner": {"ServerRunnerConfig": "task_result_filters"},
        "nvflare.private.fed.server.server_engine": {
            "ServerEngine.send_aux_request": "targets topic request timeout fl_ctx optional",
            "ServerEngine.register_app_command": "topic cmd_func",
        },
        "nvflare.app_common.utils.tensor_disk_offload_context": {
            "setup_tensor_disk_offload": "engine enabled job_id",
            "cleanup_tensor_disk_offload": "engine context",
        },
        "nvflare.fuel.utils.memory_utils": {"try_malloc_trim": ""},
        # Kits: keys of encryption (fl_server.flare.encryption, fl_client.flare.encryption_keys)
        "nvflare.fuel.sec.security_content_service": {
            "SecurityContentManager": "content_folder",
            "SecurityContentManager.load_content": "file_under_verification",
        },
        # Site: the process of a job (fl_client.flare.job_launcher)
        "nvflare.app_common.job_launcher.client_process_launcher": {
            "ClientProcessJobLauncher.get_command": "job_meta fl_ctx"
        },
        "nvflare.app_common.job_launcher.process_launcher": {"ProcessHandle": "process_adapter"},
        "nvflare.utils.process_utils": {"spawn_process": "cmd_args env"},
        "nvflare.utils.job_launcher_utils": {"get_credential_env": "job_args"},
        # Site: waking up (fl_client.flare.wake) and filters (fl_client.flare.privacy)
        "nvflare.private.fed.client.client_run_manager": {
            "ClientRunManager.register_aux_message_handler": "topic message_handle_func"
        },
        "nvflare.app_common.filters.percentile_privacy": {
            "PercentilePrivacy.process_dxo": "dxo shareable fl_ctx"
        },
        "nvflare.app_common.filters.svt_privacy": {
            "SVTPrivacy.process_dxo": "dxo shareable fl_ctx"
        },
        # Both: how tensors travel (mmar_runtime.flare.tensors)
        "nvflare.fuel.utils.fobs": {"register": "decomposer"},
        "nvflare.app_opt.pt.decomposers": {
            "TensorDecomposer.decompose": "target manager",
            "TensorDecomposer.native_decompose": "target manager",
            "TensorDecomposer.to_downloadable": "items max_chunk_size fobs_ctx",
            "TensorDecomposer.download": "from_fqcn ref_id per_request_timeout cell fobs_ctx",
        },
        "nvflare.app_opt.pt.tensor_downloader": {
            "TensorDownloadable": "tensors max_chunk_size",
            "TensorDownloadable.produce_item": "index",
            "TensorDownloadable.prefetch_item": "index",
            "TensorConsumer": "tensors_received_cb cb_kwargs",
            "TensorConsumer.consume": "ref_id state data",
        },
        "nvflare.app_opt.pt.lazy_tensor_dict": {"LazyTensorDict.make_lazy_ref": "key"},
        "nvflare.fuel.f3.streaming.download_service": {
            "Downloadable.produce": "state requester",
            "Downloadable.release": "",
            "download_object": "from_fqcn ref_id per_request_timeout cell consumer",
        },
    }
)
"""Module -> function, class or method -> its parameters that are given or overridden."""

VALUES: Mapping[str, object] = MappingProxyType(
    {
        "nvflare.apis.dxo:_KEY_DXO": "DXO",
        "nvflare.apis.dxo:_KEY_DATA": "data",
        "nvflare.app_opt.pt.tensor_downloader:TensorConsumer.supports_pipelining": True,
        "nvflare.fuel.utils.fobs.decomposers.via_downloader:EncKey.TYPE": "type",
        "nvflare.fuel.utils.fobs.decomposers.via_downloader:EncKey.DATA": "data",
        "nvflare.fuel.utils.fobs.decomposers.via_downloader:EncType.NATIVE": "native",
        "nvflare.fuel.f3.streaming.download_service:ProduceRC.OK": "ok",
        "nvflare.fuel.f3.streaming.download_service:ProduceRC.EOF": "eof",
    }
)
"""``module:name`` of a constant -> its value."""
