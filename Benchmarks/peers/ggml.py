"""ggml's own matrix product, called through the libraries that llama-cpp-python built. Needs neither torch nor llama_cpp.

Weights lie where llama.cpp puts them: in each of its extra buffer types that takes the product, which interleave the
rows of some formats, and as the file has them. `Product` holds one such copy and its graph.
"""

import ctypes
import importlib.util
from ctypes import c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

TYPES = {"f32": 0, "q4_0": 2, "q8_0": 8, "q4_k": 12, "q6_k": 14, "mxfp4": 39}


class InitParameters(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)

# Name: result, parameters.
BASE = {
    "ggml_init": (c_void_p, InitParameters),
    "ggml_free": (None, c_void_p),
    "ggml_log_set": (None, LOG, c_void_p),
    "ggml_new_tensor_2d": (c_void_p, c_void_p, c_int, c_int64, c_int64),
    "ggml_mul_mat": (c_void_p, c_void_p, c_void_p, c_void_p),
    "ggml_new_graph": (c_void_p, c_void_p),
    "ggml_build_forward_expand": (None, c_void_p, c_void_p),
    "ggml_row_size": (c_size_t, c_int, c_int64),
    "ggml_quantize_chunk": (c_size_t, c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, c_void_p, c_void_p),
    "ggml_backend_buffer_free": (None, c_void_p),
    "ggml_backend_buft_name": (c_char_p, c_void_p),
    "ggml_backend_tensor_set": (None, c_void_p, c_void_p, c_size_t, c_size_t),
    "ggml_backend_tensor_get": (None, c_void_p, c_void_p, c_size_t, c_size_t),
    "ggml_backend_graph_compute": (c_int, c_void_p, c_void_p),
    "ggml_backend_get_device": (c_void_p, c_void_p),
    "ggml_backend_dev_backend_reg": (c_void_p, c_void_p),
    "ggml_backend_dev_supports_op": (c_bool, c_void_p, c_void_p),
    "ggml_backend_reg_get_proc_address": (c_void_p, c_void_p, c_char_p),
    "ggml_backend_cpu_buffer_type": (c_void_p,),
}
CPU = {
    "ggml_backend_cpu_init": (c_void_p,),
    "ggml_backend_cpu_set_n_threads": (None, c_void_p, c_int),
}


def declared(library, functions):
    for name, (result, *parameters) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, parameters
    return library


class Ggml:
    """The libraries and a processor backend with this many threads."""

    def __init__(self, threads):
        spec = importlib.util.find_spec("llama_cpp")
        folder = Path(spec.origin).parent / "lib"

        def load(name, functions):
            return declared(ctypes.CDLL(str(folder / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL), functions)

        self.base, self.cpu = load("ggml-base", BASE), load("ggml-cpu", CPU)
        self.log = LOG(lambda *_: None)  # it tells of every weight that it lays out anew
        self.base.ggml_log_set(self.log, None)
        self.backend = self.cpu.ggml_backend_cpu_init()
        self.cpu.ggml_backend_cpu_set_n_threads(self.backend, threads)
        self.device = self.base.ggml_backend_get_device(self.backend)

    def buffer_types(self):
        """What llama.cpp tries in turn for weights, and last the plain one."""
        registry = self.base.ggml_backend_dev_backend_reg(self.device)
        address = self.base.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
        found = ctypes.CFUNCTYPE(ctypes.POINTER(c_void_p), c_void_p)(address)(self.device) if address else None
        types, index = [], 0
        while found and found[index]:
            types.append(found[index])
            index += 1
        return types + [self.base.ggml_backend_cpu_buffer_type()]

    def name(self, buffer_type):
        return self.base.ggml_backend_buft_name(buffer_type).decode()

    def quantize(self, weights, kind):
        """Blocks of f32 weights `[n, k]`, as a file has them."""
        n, k = weights.shape
        weights = np.ascontiguousarray(weights, np.float32)
        blocks = np.empty((n, self.base.ggml_row_size(TYPES[kind], k)), np.uint8)
        self.base.ggml_quantize_chunk(TYPES[kind], weights.ctypes.data, blocks.ctypes.data, 0, n, k, None)
        return blocks


class Product:
    """x `[m, k]` times weights `[n, k]` transposed, with the weights in one buffer type."""

    def __init__(self, ggml, buffer_type, x, blocks, kind, n):
        self.ggml, base, (m, k) = ggml, ggml.base, x.shape
        self.shape = (m, n)
        parameters = InitParameters(1 << 20, None, True)
        self.contexts = [base.ggml_init(parameters) for _ in range(2)]
        weights = base.ggml_new_tensor_2d(self.contexts[0], TYPES[kind], k, n)
        input = base.ggml_new_tensor_2d(self.contexts[1], TYPES["f32"], k, m)
        self.output = base.ggml_mul_mat(self.contexts[1], weights, input)
        plain = base.ggml_backend_cpu_buffer_type()
        pairs = zip(self.contexts, (buffer_type, plain))
        self.buffers = [base.ggml_backend_alloc_ctx_tensors_from_buft(*pair) for pair in pairs]
        self.graph = base.ggml_new_graph(self.contexts[1])
        base.ggml_build_forward_expand(self.graph, self.output)
        self.is_supported = all(self.buffers) and base.ggml_backend_dev_supports_op(ggml.device, self.output)
        if self.is_supported:  # only then can the buffer take the weights
            base.ggml_backend_tensor_set(weights, blocks.ctypes.data, 0, blocks.nbytes)
            base.ggml_backend_tensor_set(input, x.ctypes.data, 0, x.nbytes)

    def run(self):
        status = self.ggml.base.ggml_backend_graph_compute(self.ggml.backend, self.graph)
        if status != 0:
            raise RuntimeError(f"ggml_backend_graph_compute: status {status}")

    def result(self):
        result = np.empty(self.shape, np.float32)
        self.ggml.base.ggml_backend_tensor_get(self.output, result.ctypes.data, 0, result.nbytes)
        return result

    def free(self):
        for buffer in filter(None, self.buffers):
            self.ggml.base.ggml_backend_buffer_free(buffer)
        for context in self.contexts:
            self.ggml.base.ggml_free(context)
