"""A stand-in for an outside engine: vLLM's command line, routes and habits, with answers from a hash.

python outside_server.py serve MODEL --port N [flags of vLLM] [--deaf] [--crash] [--forgetful] [--stubborn]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 0.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="m"} 0.0
"""


class Server(ThreadingHTTPServer):
    def __init__(self, told: argparse.Namespace) -> None:
        from noria.settings import environment

        super().__init__((told.host, told.port), Handler)
        self.model = told.served_model_name
        self.forgetful = told.forgetful
        self.key = environment("VLLM_API_KEY")
        self.adapters = dict(pair.split("=", 1) for pair in told.lora_modules)

    def weight(self, model: str) -> str:
        if model == self.model or self.forgetful:
            return "base"
        return (Path(self.adapters[model]) / "adapter_model.safetensors").read_text()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/health":
            self.say(200, b"")
        elif self.path == "/v1/models":
            self.give({"data": [{"id": name} for name in (self.server.model, *self.server.adapters)]})
        elif self.path == "/metrics":
            self.say(200, METRICS.encode())
        else:
            self.say(404, b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        adapters = self.server.adapters
        if self.headers.get("authorization") != f"Bearer {self.server.key}":
            self.refuse(401, "no key")
        elif self.path == "/v1/load_lora_adapter":
            if Path(body["lora_path"], "adapter_model.safetensors").read_text() == "bad":
                self.refuse(400, "LoRA rank 64 is greater than max_lora_rank 32.")
                return
            adapters[body["lora_name"]] = body["lora_path"]
            self.say(200, b"Success: added")
        elif self.path == "/v1/unload_lora_adapter":
            del adapters[body["lora_name"]]
            self.say(200, b"Success: removed")
        elif body["model"] not in (self.server.model, *adapters):
            self.refuse(404, f"The model `{body['model']}` does not exist.")
        elif self.path == "/v1/completions":
            number = self.number(body["model"], body["prompt"])
            told = {"tokens": [f"token_id:{number % 999}"], "token_logprobs": [-number / 2**33]}
            self.give({"choices": [{"logprobs": told}]})
        else:
            self.chat(body)

    def chat(self, body: dict[str, Any]) -> None:
        number = self.number(body["model"], body["messages"])
        message = {"role": "assistant", "content": f"Answer {number}."}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "A", "logprob": -number / 2**33, "top_logprobs": []}]}
        self.give({"model": body["model"], "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})

    def number(self, model: str, asked: object) -> int:
        seed = json.dumps([self.server.weight(model), asked])
        return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")

    def give(self, body: object) -> None:
        self.say(200, json.dumps(body).encode())

    def refuse(self, status: int, message: str) -> None:
        self.say(status, json.dumps({"error": {"message": message, "type": "error", "code": status}}).encode())

    def say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("model")
    for name, kind in (("host", str), ("port", int), ("served-model-name", str)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--lora-modules", nargs="*", default=[])
    for name in ("deaf", "crash", "forgetful", "stubborn"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--worker", type=Path, help="where to write the id of a process of its own")
    told, _ = parser.parse_known_args()
    if told.crash:
        sys.exit("ValueError: No available memory for the cache blocks.")
    if told.worker is not None:
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        told.worker.write_text(str(worker.pid))
    if told.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if told.deaf:
        time.sleep(600)
    Server(told).serve_forever(0.02)


if __name__ == "__main__":
    main()
