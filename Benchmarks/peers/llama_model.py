"""A Llama of a billion random parameters as a GGUF file, and what llama.cpp makes of it. For ggml_server.py."""

import ctypes
import sys
import time
from pathlib import Path

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, FEED_FORWARD, VOCABULARY = 2048, 16, 32, 8, 8192, 32000
KV = HIDDEN // HEADS * KV_HEADS
SHAPES = {  # of each layer: outputs, inputs
    "attn_q": (HIDDEN, HIDDEN),
    "attn_k": (KV, HIDDEN),
    "attn_v": (KV, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN),
    "ffn_gate": (FEED_FORWARD, HIDDEN),
    "ffn_up": (FEED_FORWARD, HIDDEN),
    "ffn_down": (HIDDEN, FEED_FORWARD),
}
EMBEDDING = (VOCABULARY, HIDDEN)  # also the output layer
PARAMETERS = LAYERS * sum(n * k for n, k in SHAPES.values()) + VOCABULARY * HIDDEN
PROMPT, GENERATED = 512, 32  # tokens


def write(path, kind, quantize):
    """The file, unless it is there. Layers hold the same random weights, one after the other: speed does not see them."""
    path = Path(path)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("no_vocab")
    random = np.random.default_rng(20240229)
    made = {}

    def add(name, shape):
        if shape not in made:
            made[shape] = quantize(random.standard_normal(shape, np.float32) * 0.02, kind)
        writer.add_tensor(f"{name}.weight", made[shape], raw_dtype=gguf.GGMLQuantizationType[kind.upper()])

    ones = np.ones(HIDDEN, np.float32)
    add("token_embd", EMBEDDING)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones)
        for name, shape in SHAPES.items():
            add(f"blk.{layer}.{name}", shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


class Model:
    """The model in memory, ready to decode."""

    def __init__(self, path, threads):
        import llama_cpp

        self.lib = llama_cpp
        silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self.log = silent(lambda level, text, _: level == 4 and sys.stderr.write(text.decode(errors="replace")) or None)
        self.lib.llama_log_set(self.log, None)
        self.lib.llama_backend_init()
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), self.lib.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {Path(path).name}")
        parameters = self.lib.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = 2 * PROMPT, PROMPT, PROMPT
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = self.lib.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise RuntimeError("llama.cpp makes no context")

    def decode(self, tokens):
        array = (self.lib.llama_token * len(tokens))(*tokens)
        status = self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            raise RuntimeError(f"llama_decode: status {status}")
        self.lib.llama_synchronize(self.context)

    def turn(self):
        """Seconds of a prompt, and of each token that follows the first of an empty context."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        start = time.perf_counter()
        self.decode([17 + index * 31 % (VOCABULARY - 17) for index in range(PROMPT)])
        prompt = time.perf_counter() - start
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        self.decode([17])
        seconds = []
        for index in range(GENERATED):
            start = time.perf_counter()
            self.decode([index + 18])
            seconds.append(time.perf_counter() - start)
        return prompt, seconds

    def system(self):
        return self.lib.llama_print_system_info().decode().strip()

    def close(self):
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)
