"""A stand-in for a user's own `llama-server`: its command line before the server that xllamacpp brings."""

from __future__ import annotations

import argparse
import sys
import time

HELP = """-fa,   --flash-attn [on|off|auto]      set Flash Attention use
--no-webui    disable the web UI
--cache-ram N   maximum cache size in MiB
--lora-scaled FNAME:SCALE,...   path to LoRA adapter with user defined scaling
"""


def main() -> None:
    if "--help" in sys.argv:
        sys.stdout.write(HELP)
        return
    import xllamacpp

    from noria.settings import environment

    parser = argparse.ArgumentParser(add_help=False)
    for flag in ("-m", "-a", "--host", "-fa", "--lora-scaled"):
        parser.add_argument(flag)
    for flag in ("--port", "-np", "-c", "-t", "--cache-ram"):
        parser.add_argument(flag, type=int)
    for flag in ("--metrics", "--no-webui"):
        parser.add_argument(flag, action="store_true")
    told = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = told.m, {told.a}
    params.hostnames, params.port = [told.host], told.port
    params.api_keys, params.cors_origins, params.ui = [environment("LLAMA_API_KEY")], "", not told.no_webui
    params.endpoint_metrics, params.n_parallel, params.n_ctx = told.metrics, told.np, told.c
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = told.t
    params.cache_ram_mib = told.cache_ram
    pairs = [each.rsplit(":", 1) for each in (told.lora_scaled or "").split(",") if each]
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, float(scale)) for path, scale in pairs]
    server = xllamacpp.Server(params)
    while server is not None:
        time.sleep(60)


if __name__ == "__main__":
    main()
