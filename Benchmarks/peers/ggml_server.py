"""Runs ggml's products and a model of llama.cpp as another program asks for them, as `benchmarks --serve` does.

A process of its own: a crash in the library costs its figures and no others, and its threads do not share PyTorch's
OpenMP runtime. One JSON object a line, in and out; only the last product and the last model are kept.

{"product": FILE, "type": T}         `layouts` of the weights that this machine has for operand.0 and operand.1 of FILE
{"layout": L, "export": FILE}        writes `result` of that product, and `weights`: what the codes stand for
{"layout": L, "seconds": S}          runs it that long; `seconds` a call, a list
{"model": FILE, "type": T}           writes the random model unless it is there, and loads it; its size, `system`
{"turn": true}                       `prompt`: seconds of 512 tokens; `tokens`: seconds of each that follows
{"free": true}                       lets go of the model
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np
from common import timed
from ggml import Ggml, Product
from safetensors.numpy import load_file, save_file


class Server:
    def __init__(self, threads):
        self.threads, self.ggml = threads, Ggml(threads)
        self.products, self.weights, self.model = {}, None, None

    def answer(self, request):
        if "product" in request:
            return self.load(request["product"], request["type"])
        if "layout" in request:
            product = self.products[request["layout"]]
            if "export" in request:
                product.run()
                save_file({"result": product.result(), "weights": self.weights}, request["export"])
                return {}
            return {"seconds": timed(product.run, request["seconds"])}
        if "model" in request:
            return self.open(Path(request["model"]), request["type"])
        if "turn" in request:
            prompt, tokens = self.model.turn()
            return {"prompt": prompt, "tokens": tokens}
        self.close()
        return {}

    def load(self, file, kind):
        for product in self.products.values():
            product.free()
        self.products = {}
        tensors = load_file(file)
        x, w = (np.ascontiguousarray(tensors[f"operand.{index}"]) for index in range(2))
        blocks = self.ggml.quantize(w, kind)
        self.weights = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind.upper()]).astype(np.float32)
        for buffer_type in self.ggml.buffer_types():
            product = Product(self.ggml, buffer_type, x, blocks, kind, len(w))
            if product.is_supported:
                self.products[self.ggml.name(buffer_type)] = product
            else:
                product.free()
        return {"layouts": list(self.products), "version": version("llama-cpp-python")}

    def open(self, path, kind):
        import llama_model

        self.close()
        llama_model.write(path, kind, self.ggml.quantize)
        self.model = llama_model.Model(path, self.threads)
        return {
            "bytes": path.stat().st_size,
            "parameters": llama_model.PARAMETERS,
            "prompt": llama_model.PROMPT,
            "system": self.model.system(),
            "version": version("llama-cpp-python"),
        }

    def close(self):
        if self.model:
            self.model.close()
        self.model = None


def main():
    # What the library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    server = Server(int(os.environ["OMP_NUM_THREADS"]))
    for line in sys.stdin:
        try:
            answer = server.answer(json.loads(line))
        except Exception as error:  # the other side decides what it can do without
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


main()
