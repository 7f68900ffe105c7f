import Quern

/// Operations bounded by memory, on operands that no cache holds: what is measured is how near they come to a copy.
extension Suite {
  static let streaming = Suite(benchmarks: [
    BenchmarkCases.Entry(.softmax, "Llama-3.2-1B logits: rows=72 n=128256", kernels: ["f32_softmax"]) {
      try .softmax(RowShape(72, 128256), name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.layerNorm, "MiniLM 256x128: rows=32768 n=384 residual", kernels: ["f32_layernorm"]) {
      try .norm(.layerNorm, RowShape(32768, 384), residual: true, epsilon: 1e-12, name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.rmsNorm, "Llama-3.2-1B 8192: rows=8192 n=2048", kernels: ["f32_rmsnorm"]) {
      try .norm(.rmsNorm, RowShape(8192, 2048), name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.add, "Llama-3.2-1B 8192: rows=8192 n=2048", kernels: ["f32_add"]) {
      try .binary(.add, RowShape(8192, 2048), name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.scale, "Llama-3.2-1B 8192: rows=8192 n=2048", kernels: ["f32_scale"]) {
      try .scale(RowShape(8192, 2048), by: 0.125, name: $0, operands: $1)
    },
  ])
}
