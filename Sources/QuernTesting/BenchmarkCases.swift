import Quern

/// The shapes every operation is timed at, taken from real models.
public enum BenchmarkCases {
  /// One operation at one shape.
  public struct Entry: Sendable {
    public let operation: Quern.Operation
    /// The model and layer, then the shape.
    public let name: String
    public let kernels: [String]
    let make: @Sendable (String, Operands) throws -> Workload

    init(
      _ operation: Quern.Operation, _ name: String, kernels: [String],
      make: @escaping @Sendable (String, Operands) throws -> Workload
    ) {
      (self.operation, self.name, self.kernels, self.make) = (operation, name, kernels, make)
    }

    /// The model that the shape is from; `nil` for the shapes that every library is measured at.
    public var model: String? { models.first { name.hasPrefix($0) } }

    /// The workload, its operands made from this seed.
    public func workload(seed: UInt64 = SeededRandom.runSeed) throws -> Workload {
      try make(name, Operands(seed: seed))
    }
  }

  private static let models = ["MiniLM", "Llama-3.2-1B", "Qwen3-0.6B", "SD-1.5"]

  public static let all: [Entry] = linear + matmul + attention + rows

  private static let gemmKernels = ["f32_gemm_block", "f32_gemm_pack_a", "f32_gemm_pack_b"]

  private static let linear: [Entry] = [
    ("MiniLM qkv 16", LinearShape(m: 16, n: 1152, k: 384, bias: true)),
    ("MiniLM qkv 128", LinearShape(m: 128, n: 1152, k: 384, bias: true)),
    ("MiniLM qkv 4096", LinearShape(m: 4096, n: 1152, k: 384, bias: true)),
    ("MiniLM out 4096", LinearShape(m: 4096, n: 384, k: 384, bias: true, residual: true)),
    ("MiniLM up+gelu 128", LinearShape(m: 128, n: 1536, k: 384, activation: .gelu, bias: true)),
    ("MiniLM up+gelu 4096", LinearShape(m: 4096, n: 1536, k: 384, activation: .gelu, bias: true)),
    ("MiniLM down 4096", LinearShape(m: 4096, n: 384, k: 1536, bias: true, residual: true)),
    ("Llama-3.2-1B up 1", LinearShape(m: 1, n: 8192, k: 2048)),
    ("Llama-3.2-1B up 128", LinearShape(m: 128, n: 8192, k: 2048)),
    ("Llama-3.2-1B down 128", LinearShape(m: 128, n: 2048, k: 8192)),
    ("Qwen3-0.6B q 128", LinearShape(m: 128, n: 2048, k: 1024)),
    ("Qwen3-0.6B gate+silu 128", LinearShape(m: 128, n: 3072, k: 1024, activation: .silu)),
    ("SD-1.5 ff 1024", LinearShape(m: 1024, n: 2560, k: 640, bias: true)),
  ].map { model, shape in
    let kernels = gemmKernels + ["f32_epilogue"]
    return Entry(.linear, "\(model): \(shape)", kernels: kernels) { try .linear(shape, name: $0, operands: $1) }
  }

  private static let matmul: [Entry] = [
    ("square", MatmulShape(m: 256, n: 256, k: 256)), ("square", MatmulShape(m: 512, n: 512, k: 512)),
    ("square", MatmulShape(m: 1024, n: 1024, k: 1024)),
    ("square Bt", MatmulShape(m: 1024, n: 1024, k: 1024).with { $0.transposesB = true }),
    ("SD-1.5 scores", MatmulShape(batch: 16, m: 1024, n: 77, k: 40).with { $0.transposesB = true }),
    ("many small", MatmulShape(batch: 512, m: 16, n: 16, k: 32)),
  ].map { model, shape in
    Entry(.matmul, "\(model): \(shape)", kernels: gemmKernels) { try .matmul(shape, name: $0, operands: $1) }
  }

  private static let attention: [Entry] = [
    ("MiniLM 32x128", AttentionShape([Int](repeating: 128, count: 32), heads: 12, size: 32)),
    ("MiniLM 1x16", AttentionShape([16], heads: 12, size: 32)),
    ("Llama-3.2-1B causal", AttentionShape([512], heads: 32, kvHeads: 8, size: 64, mask: .causal)),
    ("Qwen3-0.6B causal", AttentionShape([256], heads: 16, kvHeads: 8, size: 128, mask: .causal)),
    ("SD-1.5 self", AttentionShape([1024], heads: 8, size: 40)),
    ("SD-1.5 cross", AttentionShape([4096], keys: [77], heads: 8, size: 40)),
  ].map { model, shape in
    Entry(.attention, "\(model): \(shape)", kernels: ["f32_attention_block"]) {
      try .attention(shape, name: $0, operands: $1)
    }
  }

  private static let rows: [Entry] =
    [
      Entry(.softmax, "Llama-3.2-1B scores: rows=2048 n=512", kernels: ["f32_softmax"]) {
        try .softmax(RowShape(2048, 512), name: $0, operands: $1)
      },
      Entry(.layerNorm, "MiniLM: rows=4096 n=384 residual", kernels: ["f32_layernorm"]) {
        try .norm(.layerNorm, RowShape(4096, 384), residual: true, epsilon: 1e-12, name: $0, operands: $1)
      },
      Entry(.rmsNorm, "Llama-3.2-1B: rows=512 n=2048", kernels: ["f32_rmsnorm"]) {
        try .norm(.rmsNorm, RowShape(512, 2048), name: $0, operands: $1)
      },
      Entry(.l2Normalize, "MiniLM: rows=4096 n=384", kernels: ["f32_l2norm"]) {
        try .norm(.l2Normalize, RowShape(4096, 384), affine: false, epsilon: 1e-12, name: $0, operands: $1)
      },
      Entry(.embedding, "MiniLM: rows=4096 n=384 table=30522", kernels: ["f32_gather"]) {
        try .embedding(RowShape(4096, 384), table: 30522, name: $0, operands: $1)
      },
      Entry(.meanPool, "MiniLM: 32x128 n=384", kernels: ["f32_mean_pool"]) {
        try .meanPool([Int](repeating: 128, count: 32), n: 384, name: $0, operands: $1)
      },
      Entry(.add, "MiniLM: rows=4096 n=384", kernels: ["f32_add"]) {
        try .binary(.add, RowShape(4096, 384), name: $0, operands: $1)
      },
      Entry(.multiply, "Llama-3.2-1B gate: rows=512 n=8192", kernels: ["f32_mul"]) {
        try .binary(.multiply, RowShape(512, 8192), name: $0, operands: $1)
      },
      Entry(.scale, "MiniLM: rows=4096 n=384", kernels: ["f32_scale"]) {
        try .scale(RowShape(4096, 384), by: 0.125, name: $0, operands: $1)
      },
    ]
    + Activation.allCases.filter { $0 != .identity }.map { activation in
      Entry(.activation, "MiniLM \(activation.rawValue): rows=4096 n=1536", kernels: ["f32_activation"]) {
        try .activation(activation, RowShape(4096, 1536), name: $0, operands: $1)
      }
    }
}
