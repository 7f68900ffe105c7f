import Quern

extension BenchmarkCases {
  /// The products that `make peers ARGS="--part gemm"` holds against OpenBLAS, PyTorch and llama.cpp.
  ///
  /// Apart from ``all``, which they would outweigh: most are here for one bar each, and 4096 cubed takes most of a second.
  /// Registry lines have their benchmarks there. `Benchmarks/peers/products.py` reads the type of the weights in the last word of a name.
  public static let products: [Entry] = squares + rows + narrow + int8 + quantized

  /// Neither side packed before the call.
  private static let squares = [32, 48, 64, 96, 128, 192, 256, 1024, 2048, 4096].map { size in
    let shape = MatmulShape(m: size, n: size, k: size)
    return Entry(.matmul, "square: \(shape) f32", kernels: []) { try .matmul(shape, name: $0, operands: $1) }
  }

  /// From a vector to a batch of requests, on packed weights of 64 MiB.
  private static let rows = [1, 4, 8, 16].map { count in
    linear("rows", LinearShape(m: count, n: 4096, k: 4096), suffix: "f32")
  }

  /// Operands and results in bf16, weights packed.
  private static let narrow = [512, 1024, 2048].map { size in
    linear("square packed", LinearShape(m: size, n: size, k: size), suffix: "bf16", dataType: .bf16)
  }

  /// Weights packed; rows of x are rounded in the call.
  private static let int8 = [1024, 2048].map { size in
    linear("square packed", LinearShape(m: size, n: size, k: size, int8: true))
  }

  /// The layers of a Llama of a billion parameters: decoding and prefill in every format.
  private static let quantized = QuantizedFormat.allCases.flatMap { format in
    [1, 512].flatMap { count in
      [("q", 2048, 2048), ("up", 8192, 2048), ("down", 2048, 8192)].map { layer, n, k in
        linear("Llama-3.2-1B \(layer)", LinearShape(m: count, n: n, k: k, quantization: format))
      }
    }
  }

  /// - Parameter suffix: the type of the weights, where the shape does not name it.
  private static func linear(
    _ title: String, _ shape: LinearShape, suffix: String? = nil, dataType: DataType = .f32
  ) -> Entry {
    let name = "\(title): \(shape)" + (suffix.map { " \($0)" } ?? "")
    return Entry(.linear, name, kernels: [], dataType: dataType) { try .linear(shape, name: $0, operands: $1) }
  }
}
