"""Which form each argument has: by its name, by its kind of component, and by its class.

The closest decision wins: that for a class, then that for a kind, then that for the name. A plain
switch and a plain number need none; a number then has the bounds of its kind, ``NUMBERS``. For
everything else the generator stops until somebody has read what the class does with the value.
"""

from __future__ import annotations

from collections.abc import Mapping

WORDS = "words: "
"""The name of a form begins so where the rest of the name is its list of words."""

NUMBERS: Mapping[str, tuple[str, str]] = {
    "network": ("width", "network real"),
    "loss": ("whole", "real"),
    "optimizer": ("whole", "real"),
    "lr_scheduler": ("steps", "real"),
    "transform": ("whole", "intensity"),
    "dataset": ("bytes or voxels", "fraction"),
    "dataloader": ("count", "timeout"),
    "inferer": ("position", "real"),
    "handler": ("steps", "real"),
    "metric": ("classes", "real"),
    "trainer": ("interval", "real"),
    "evaluator": ("interval", "real"),
    "prepare_batch": ("count", "real"),
}
"""The forms of whole and of real numbers that no other decision names, for each kind."""


def each(form: str, names: str) -> dict[str, str]:
    """The same form for several names."""
    return dict.fromkeys(names.split(), form)


def one_of(words: str) -> str:
    """The form of a list of words that one argument alone has; its name is the list."""
    return WORDS + words


BY_NAME: Mapping[str, str] = {
    # --- refused wherever they are ---
    **each("no function", """
        additional_info converter dataset_logger distance_function epoch_event_writer
        epoch_logger epoch_print_logger hash_func hash_transform iteration_event_writer
        iteration_logger iteration_print_logger inv_func other other_act
        output_name_formatter post_func preprocess scale_fn upsampler
    """),
    **each("no object", "folder_layout norm_layer roi_slices saver summary_writer"),
    **each("no type", "cell"),
    **each("no pickle", "allow_pickle pickle_module weights_only"),
    **each("no regex", "fname_regex prune_meta_pattern use_re"),
    **each("no format", "key_var_format"),
    **each("no compiler", "compile_kwargs"),
    **each("no download", "pretrained_url pretrained_state_dict_key"),
    **each("no events", "event_names event_to_attr"),
    **each("set by the runtime", """
        batch_sampler collate_fn generator multiprocessing_context sampler worker_init_fn
    """),
    "compile": "off: compiler",
    "pretrained": "off: download",
    # --- functions ---
    "output_transform": "metric output",
    "batch_transform": "log output",
    "loss_transform": "log output",
    **each("number of engine", """
        global_epoch_transform global_iter_transform metric_transform
        score_function step_transform
    """),
    "select_fn": "mask",
    "metric_cmp_fn": "comparison",
    "func": "voxels",
    "patch_func": "transforms",
    # Also a function of two arguments, which the language of expressions does not have.
    **each("flag or count", "epoch_log iteration_log map_items"),
    # --- references ---
    **each("network", "network networks g_network d_network model image_encoder class_head "
                      "point_head dints_space"),
    **each("loss", "loss loss_fn loss_function g_loss_function d_loss_function "
                   "recon_loss_function"),
    **each("optimizer", "optimizer g_optimizer d_optimizer"),
    **each("lr_scheduler", "lr_scheduler schedulers"),
    **each("dataset", "dataset smartcacher"),
    "dataset_dict": "dataset map",
    **each("dataloader", "data_loader train_data_loader val_data_loader"),
    **each("inferer", "inferer g_inferer d_inferer"),
    **each("handlers", "handlers train_handlers val_handlers"),
    **each("metrics", """
        additional_metrics key_metric key_train_metric key_val_metric metric_fn src
    """),
    **each("prepare_batch", "prepare_batch g_prepare_batch d_prepare_batch"),
    "iteration_update": "iteration",
    "trainer": "trainer",
    **each("evaluator", "evaluator validator"),
    "scheduler": "noise scheduler",
    "splitter": "splitter",
    **each("transforms", "postprocessing transform"),
    "transforms": "transforms written out",
    "params": "parameters",
    "load_dict": "parts to load",
    "data": "cases",
    # --- objects ---
    "amp_kwargs": "autocast",
    "to_kwargs": "transfer",
    "overrides": "lazy overrides",
    "experiment_param": "parameters of a run",
    **each("flags by name", "auto_connect_arg_parser auto_connect_frameworks"),
    "label_dict": "label numbers",
    "layer_params": "high-resolution layers",
    "map_location": "device map",
    # --- names of entries in an item of data, in the output of an engine ---
    **each("key", """
        batch_keys bbox_key_postfix bg_indices_key bg_postfix box_key condition_name dataset_keys
        dst_keys end_coord_key factor_key fg_indices_key fg_postfix heatmap_keys image_key
        indices_key indices_postfix key_dst key_metric_name key_prefix keys label_key label_keys
        mask_key mask_keys meta_key_postfix meta_keys names new_key_prefix npz_keys orig_keys
        orig_meta_keys output_key output_keys output_postfixes point_key pred_keys prefix prob_key
        ref_image_keys refer_keys source_key start_coord_key sub_keys visibility_keys w_key
    """),
    "extra_keys": "key map",
    # --- text that only a log, a tracker or the name of a logger shows ---
    **each("label", """
        experiment_name name project_name run_name series_name tag_name tags task_name
    """),
    "log_stats": "alias flag",
    "return_with_label": "label flag",
    "formatter": "log format",
    **each("separator", "delimiter prune_meta_sep sep"),
    "loglevel": "log level",
    "log_level": "log level",
    # --- names of layers; looked up among those of the network ---
    **each("layer name", "fc_layers fc_name node_name target_layers"),
    # --- devices and types of numbers ---
    **each("device", "device pin_memory_device sw_device"),
    **each("dtype", "dtype grid_dtype output_dtype"),
    # --- words ---
    **each("interpolation", """
        downsample_mode field_mode grid_mode interp_mode mode upsample_mode upsampling_mode
    """),
    **each("padding", "grid_padding_mode pad_mode padding_mode"),
    **each("reduction", "metric_reduction reduction"),
    "average": "average",
    "metrics_result_mode": "result mode",
    **each("activation", "act act_name acti_type activation final_conv_act last_act output_act "
                         "out_activation post_activation"),
    **each("norm", "norm norm_name norm_type"),
    **each("dropout", "dropout dropout_prob"),
    "reader": "image reader",
    "writer": "image writer",
    "merger_cls": "merger",
    "state_attributes": "state fields",
    "summary_ops": "summary",
    **each("metric names", "metrics metric_details metric_name"),
    "axcodes": "axis codes",
    "labels": "axis labels",
    "rotate_order": "order of axes",
    "adn_ordering": "order of layers",
    "blocks_args_str": "efficient blocks",
    "adjust_lr_fn": one_of("original match_rms_adamw"),
    "anneal_strategy": one_of("cos linear"),
    "approx": one_of("erf refined scalesummed"),
    "area_range": one_of("small medium large all"),
    "calibration_reduction": one_of("expected average maximum"),
    "cam_name": one_of("CAM GradCAM GradCAMpp"),
    "channel_matching": one_of("pad project"),
    "class_mean": one_of("micro macro weighted"),
    "coordinate_space": one_of("voxel world"),
    "criterion": one_of("bce hinge least_squares"),
    "data_type": one_of("tensor numpy"),
    "distance_metric": one_of("euclidean chessboard taxicab"),
    "distance_type": one_of("l1 l2"),
    "downsample": one_of("merging mergingv2"),
    "embedding_init": one_of("normal kaiming_uniform"),
    "event": one_of("MODEL_COMPLETED ITERATION_COMPLETED"),
    "trigger_event": one_of("epoch iteration"),
    "fft_norm": one_of("forward backward ortho"),
    "gain_function": one_of("exp_rank linear_rank"),
    "hyena_fft_padding": one_of("zero circular"),
    "hyena_grid_type": one_of("single double"),
    "index_order": one_of("C F"),
    "kernel": one_of("gaussian cauchy"),
    "kernel_ops": one_of("mean gaussian"),
    "kernel_type": one_of("gaussian rectangular triangular b-spline uniform Laplace"),
    "line_search_fn": one_of("strong_wolfe"),
    "method": one_of("symmetric end"),
    "mil_mode": one_of("mean max att att_trans att_trans_pyramid"),
    "multiref": one_of("average best"),
    "optimizer_param_names": one_of("lr initial_lr momentum weight_decay betas eps"),
    "ops": one_of("mean median max min std"),
    "out_kernel_initializer": one_of("kaiming_uniform zeros"),
    "output_type": one_of("csv"),
    "pos_embed_type": one_of("none learnable sincos fourier"),
    "decoder_pos_embed_type": one_of("none learnable sincos fourier"),
    "pre_conv": one_of("default"),
    "proj_type": one_of("conv perceptron"),
    "reflect_type": one_of("even odd"),
    "rounding": one_of("torchrounding"),
    "runtime_cache": "cache while running",
    "scale_mode": one_of("cycle iterations"),
    "se_block": one_of("CSE SSE CSSE None"),
    "shortcut_type": one_of("A B"),
    "size_mode": one_of("all longest"),
    "sort_fn": one_of("random min max"),
    "threshold_mode": one_of("rel abs"),
    "upsample": one_of("deconv deconvgroup nontrainable pixelshuffle"),
    "version": one_of("v1 v2"),
    "w_type": one_of("square simple uniform"),
    "weight_mode": one_of("same exp two none"),
    "weighting_mode": one_of("default GDL"),
    # --- numbers whose name says more than their kind ---
    **each("fraction", """
        cache_rate drop_connect_rate drop_out drop_rate dropout_cattn dropout_rate
        attn_drop_rate dropout_path_rate dropout_prob_down dropout_prob_up emb_dropout_rate
        embedding_dropout_rate hyena_mask_max_attenuation label_smoothing masking_ratio
        match_iou_threshold pct_start prob prob_threshold rec_thresholds iou_thresholds
        replace_rate token_dropout_prob trans_dropout
    """),
    "overlap": "overlap",
    **each("rate", "base_lr end_lr lr max_lr min_lr eta_min lr_decay weight_decay"),
    **each("momentum", "base_momentum dampening max_momentum momentum rho"),
    **each("epsilon", "eps epsilon smooth smooth_dr smooth_nr smooth_numerator tolerance_change "
                      "tolerance_grad"),
    "spatial_dims": "dims",
    "ndims": "dims",
    **each("kernel", """
        kernel_size win_size kernel_c conv1_t_size last_conv_kernel_size up_kernel_size
        upsample_kernel_size downsample_kernel_size encode_kernel_sizes hyena_kernel_size
        strides stride_conv stride_pool conv1_t_stride
    """),
    **each("layers", """
        attn_layers_depth blocks_down blocks_up block_config decoder_num_layers deep_supr_num depth
        depths dsdepth hyena_kernel_layers integration_steps layers num_blocks num_d num_depths
        num_inter_units num_layers num_layers_d num_res_blocks num_res_layers num_res_units
        trans_blocks transformer_num_layers extract_levels
    """),
    **each("vocabulary", "num_tokens num_embeddings"),
    **each("axis", "axis buffer_dim dim frame_dim spatial_axes spatial_axis spatial_dim indices"),
    **each("size", """
        autoencoder_latent_shape cropped_shape fft_signal_size image_size img_size in_shape
        input_image_size input_shape latent_shape ldm_latent_shape max_roi_size max_spatial_size
        merged_shape out_shape output_shape patch_size rand_size roi_size spatial_shape
        spatial_size start_shape window_size box_size
    """),
    **each("position", "channel_indices max_offset min_offset offset loc margin"),
    **each("position or key", "roi_center roi_end roi_start"),
    **each("border", "pad spatial_border stat_length"),
    **each("copies", "holes max_holes num_patches num_samples repeats times"),
    **each("few", "connectivity d_train_steps iter_ max_k ngram ns_steps num_components "
                  "num_transforms p"),
    "radius": "radius",
    "window_length": "window",
    **each("degree", "degree"),
    **each("sigma", """
        anti_aliasing_sigma kernel_sigma scales sigma sigma1 sigma1_x sigma1_y sigma1_z sigma2
        sigma2_x sigma2_y sigma2_z sigma_range sigma_ratio sigma_scale sigma_x sigma_y sigma_z
        truncated
    """),
    **each("zoom", "max_roi_scale max_zoom min_zoom roi_scale zoom"),
    "zoom_range": "downsampling",
    **each("angle", "range_x range_y range_z rotate_params rotate_range angle"),
    **each("factor", "scale_params scale_range shear_params shear_range distort_limit "
                     "distort_steps warmup_multiplier"),
    **each("shift", "translate_params translate_range magnitude_range def_range"),
    **each("spacing", "max_pixdim min_pixdim pixdim resolution sampling"),
    "spacing": "grid spacing",
    **each("percentile", "lower upper percentile"),
    "delay_time": "seconds",
    **each("grid", "grid num_cells num_control_points"),
    **each("bins", "num_bins"),
    **each("batch", "sw_batch_size"),
    **each("workers", "num_workers num_init_workers num_replace_workers"),
    "prefetch_factor": "prefetch",
    **each("buffer", "buffer_size buffer_steps"),
    **each("steps", """
        epochs last_epoch milestones num_iter step_size step_size_down step_size_up steps_per_epoch
        t_total total_iters total_steps warmup_steps T_0 T_max T_mult
    """),
    **each("interval", "interval save_interval max_epochs epoch_length accumulation_steps"),
    **each("kept files", "n_saved key_metric_n_saved"),
    "max_frames": "frames",
    "max_channels": "channels shown",
    "max_iter": "iterations",
    "max_eval": "evaluations",
    "history_size": "history",
    **each("bytes or voxels", "cache_num cpu_thresh min_size"),
    "seed": "seed",
    "pickle_protocol": "protocol",
    "fill_value": "fill",
    # --- numbers in lists, arrays and tensors, or without an annotation ---
    **each("real", "dist_matrix perturb_noise weights"),
    **each("class weights", "pos_weight weight"),
    **each("intensity", """
        affine constant_values divisor end_values mask mask_data replacement subtrahend value
    """),
    **each("label value", "orig_labels target_labels"),
    **each("count", "applied_labels"),
    **each("exponent", "gamma power"),
    **each("width", """
        arch_code decoder_channels downsample_parameters filters in_channels inter_channels
        inter_dilations out_channels upsample_parameters
    """),
    **each("momentum", "betas"),
    **each("rate", "etas step_sizes"),
    "ns_coefficients": "real",
    **each("flag", """
        affine_lps_to_ras align_corners as_closest_canonical copy hyena_stages keepdim non_blocking
        prune_metadata reduce register_backward reverse_indexing series_meta size_average
        squeeze_non_spatial_dims swap_ij to_gpu visual_output
    """),
}  # fmt: skip

BY_KIND: Mapping[tuple[str, str], str] = {
    ("network", "reduction"): "width",
    ("network", "upsample_mode"): one_of(
        "deconv deconvgroup nontrainable pixelshuffle transpose bilinear trilinear nearest"
    ),
    ("network", "progress"): "no progress",
    ("network", "model_name"): "network names",
    ("network", "backbone"): "network names",
    ("network", "dim"): "dims",
    ("network", "num_classes"): "width",
    ("network", "padding"): "kernel",
    ("network", "pool"): "kernel",
    ("transform", "name"): "label",
    ("transform", "k"): "divisor",
    ("transform", "k_divisible"): "divisor",
    ("transform", "to_onehot"): "one-hot",
    ("transform", "num_classes"): "classes",
    ("transform", "num_bins"): "bins",
    ("loss", "num_bins"): "joint bins",
    ("transform", "spatial_dims"): "axis",
    ("dataloader", "batch_size"): "batch",
    ("loss", "batch_size"): "batch",
    ("loss", "margin"): "real",
    ("transform", "batch_size"): "batch",
    ("metric", "ignore_index"): "whole",
    ("inferer", "batch_size"): "batch",
    ("metric", "batch_size"): "no function",
    ("metric", "p"): "few",
    ("metric", "k"): "classes",
    ("metric", "top_k"): "classes",
    ("metric", "num_classes"): "classes",
    ("lr_scheduler", "mode"): one_of("min max triangular triangular2 exp_range"),
    ("evaluator", "mode"): one_of("train eval"),
    ("inferer", "mode"): one_of("constant gaussian"),
    ("handler", "output_transform"): "log output",
    ("dataset", "num_workers"): "workers",
}

BY_CLASS: Mapping[str, Mapping[str, str]] = {
    # --- where files are written, and what they are called ---
    "monai.data.dataset.CacheNTransDataset": {"cache_dir": "cache folder"},
    "monai.data.dataset.PersistentDataset": {"cache_dir": "cache folder"},
    "monai.handlers.checkpoint_loader.CheckpointLoader": {"load_path": "weights file"},
    "monai.handlers.checkpoint_saver.CheckpointSaver": {
        "save_dir": "models folder", "save_dict": "parts to save", "file_prefix": "file name",
        "final_filename": "file name", "key_metric_filename": "file name",
    },
    "monai.handlers.classification_saver.ClassificationSaver": {
        "output_dir": "results folder", "filename": "file name",
    },
    "monai.handlers.clearml_handlers.ClearMLImageHandler": {
        "log_dir": "models folder", "output_uri": "service or flag",
    },
    "monai.handlers.clearml_handlers.ClearMLStatsHandler": {
        "log_dir": "models folder", "output_uri": "service or flag",
    },
    "monai.handlers.logfile_handler.LogfileHandler": {
        "output_dir": "models folder", "filename": "file name",
    },
    "monai.handlers.metrics_saver.MetricsSaver": {"save_dir": "results folder"},
    "monai.handlers.mlflow_handler.MLFlowHandler": {
        "artifact_location": "service", "artifacts": "run files", "tracking_uri": "tracker",
    },
    "monai.handlers.probability_maps.ProbMapProducer": {
        "output_dir": "results folder", "output_postfix": "file name",
    },
    "monai.handlers.tensorboard_handlers.TensorBoardImageHandler": {
        "log_dir": "models folder",
    },
    "monai.handlers.tensorboard_handlers.TensorBoardStatsHandler": {"log_dir": "models folder"},
    "monai.transforms.io.dictionary.SaveImaged": {
        "data_root_dir": "images folder", "output_dir": "results folder",
        "output_postfix": "file name", "output_ext": "file name", "output_format": "file name",
        "scale": "count",
    },
    "monai.transforms.io.dictionary.WriteFileMappingd": {"mapping_file_path": "mapping file"},
    "monai.transforms.post.dictionary.SaveClassificationd": {
        "output_dir": "results folder", "filename": "file name",
    },
    # --- words that another class with the same name of an argument does not share ---
    "ignite.metrics.cohen_kappa.CohenKappa": {"weights": one_of("linear quadratic")},
    "ignite.metrics.hsic.HSIC": {"sigma_x": "real", "sigma_y": "real"},  # -1 lets it choose
    "ignite.metrics.metric_group.MetricGroup": {"metrics": "metric map"},
    "ignite.metrics.nlp.bleu.Bleu": {"smooth": one_of("no_smooth smooth1 nltk_smooth2 smooth2")},
    "ignite.metrics.nlp.rouge.Rouge": {"variants": "n-grams"},
    "ignite.metrics.rec_sys.ndcg.NDCG": {"relevance_threshold": "real"},
    "ignite.metrics.running_average.RunningAverage": {"alpha": "running weight"},
    "monai.inferers.inferer.PatchInferer": {
        "preprocessing": "no function", "postprocessing": "no function",
    },
    "monai.inferers.inferer.SaliencyInferer": {"postprocessing": "no function"},
    "monai.networks.nets.dints.DiNTS": {"node_a": "width"},
    "monai.networks.nets.hovernet.HoVerNet": {"mode": one_of("FAST ORIGINAL")},
    "monai.networks.nets.milmodel.MILModel": {"backbone": "torchvision names"},
    "monai.networks.nets.netadapter.NetAdapter": {"pool": "pooling"},
    "monai.networks.nets.resnet.ResNet": {"block": one_of("basic bottleneck")},
    "monai.networks.nets.senet.SENet": {
        "block": one_of("se_bottleneck se_resnet_bottleneck se_resnetxt_bottleneck"),
    },
    "monai.networks.nets.torchvision_fc.TorchVisionFCModel": {
        "model_name": "torchvision names", "weights": "no download", "pool": "pooling",
    },
    "monai.networks.nets.voxelmorph.VoxelMorph": {"backbone": "network"},
    "monai.networks.nets.vnet.VNet": {"dropout_prob": "split in two"},
    "monai.transforms.intensity.dictionary.ForegroundMaskd": {
        "hsv_threshold": "thresholds", "threshold": "thresholds",
    },
    "monai.transforms.intensity.dictionary.SavitzkyGolaySmoothd": {"order": "few"},
    "monai.transforms.post.dictionary.MeanEnsembled": {"weights": "real"},
    "monai.transforms.spatial.dictionary.ConvertBoxToPointsd": {
        "mode": one_of("xyxy xyzxyz xxyy xxyyzz xyxyzz xywh xyzwhd ccwh cccwhd"),
    },
    "monai.transforms.spatial.dictionary.GridSplitd": {"size": "sizes by key"},
    "monai.transforms.spatial.dictionary.Rotate90d": {"k": "position"},
    "monai.transforms.utility.dictionary.ConcatItemsd": {"name": "key"},
    "monai.transforms.utility.dictionary.Lambdad": {"overwrite": "flag or key"},
    "monai.transforms.utility.dictionary.RandLambdad": {"overwrite": "flag or key"},
    "monai.transforms.utility.dictionary.EnsureChannelFirstd": {"channel_dim": "no channel"},
    "monai.transforms.utility.dictionary.DataStatsd": {"data_type": "flag"},
    "monai.transforms.intensity.dictionary.ShiftIntensityd": {"offset": "intensity"},
    "monai.transforms.croppad.dictionary.SpatialCropd": {"roi_size": "position or key"},
    "monai.transforms.io.dictionary.LoadImaged": {"channel_dim": "no channel"},
}  # fmt: skip
