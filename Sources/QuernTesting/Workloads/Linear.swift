import Quern

/// `linear`: one product with packed weights.
public struct LinearShape: Sendable, CustomStringConvertible {
  public var m, n, k: Int
  public var activation = Activation.identity
  public var hasBias = false
  public var hasResidual = false
  public var scale: Float = 1
  /// How the weights are stored; `nil` for the operands' data type.
  public var quantization: QuantizedFormat?
  /// Weights and x rounded to int8.
  public var isInt8 = false

  public init(
    m: Int, n: Int, k: Int, activation: Activation = .identity, bias: Bool = false, residual: Bool = false,
    scale: Float = 1, quantization: QuantizedFormat? = nil, int8: Bool = false
  ) {
    isInt8 = int8
    self.quantization = quantization
    (self.m, self.n, self.k, self.activation, self.scale) = (m, n, k, activation, scale)
    (hasBias, hasResidual) = (bias, residual)
  }

  public var description: String {
    "m=\(m) n=\(n) k=\(k)" + (activation == .identity ? "" : " \(activation.rawValue)") + (hasBias ? " bias" : "")
      + (hasResidual ? " residual" : "") + (scale == 1 ? "" : " scale=\(scale)")
      + (quantization.map { " \($0.rawValue)" } ?? (isInt8 ? " int8" : ""))
  }
}

extension LinearShape {
  var kernels: [String] {
    if isInt8 { return Suite.int8Kernels }
    return quantization == nil ? Suite.floatKernels : Suite.quantizedKernels
  }

  /// Bytes of the weights.
  var weightBytes: Double {
    Double(n * k) * (quantization.map { Double($0.blockBytes) / Double($0.blockSize) } ?? (isInt8 ? 1 : 4))
  }
}

/// The weights of one product, as values and as they are stored.
struct LinearOperands {
  /// What the codes stand for, where they are quantised.
  let weights: TensorView
  let quantized: QuantizedMatrix?
  let isInt8: Bool
  var bias: Tensor?

  init(_ shape: LinearShape, _ operands: Operands) throws {
    let isCoded = shape.quantization != nil || shape.isInt8
    let weights = try operands.make(Shape(shape.n, shape.k), as: isCoded ? .f32 : nil)
    if shape.isInt8 { try Workload.roundToInt8(weights) }
    quantized = try shape.quantization.map { try Workload.quantize(weights, as: $0) }
    bias = shape.hasBias ? try operands.vector(shape.n) : nil
    (self.weights, isInt8) = (weights.view, shape.isInt8)
  }

  func packed(_ context: Context) throws -> PackedMatrix {
    try quantized.map { try context.pack($0) } ?? (isInt8 ? context.packInt8(weights) : context.pack(weights))
  }

}

extension Workload {
  public static func linear(_ shape: LinearShape, name: String? = nil, operands: Operands) throws -> Workload {
    let (m, n, k) = (shape.m, shape.n, shape.k)
    let x = try operands.make(Shape(m, k))
    let weights = try LinearOperands(shape, operands)
    let residual = shape.hasResidual ? try operands.make(Shape(m, n)) : nil
    let output = try operands.make(Shape(m, n))
    return linear(
      shape, name, operands, x: x.view, weights: weights, residual: residual?.view, output: output)
  }

  /// Quantises weights, and leaves in their place what the codes stand for.
  fileprivate static func quantize(_ weights: MutableTensor, as format: QuantizedFormat) throws -> QuantizedMatrix {
    replaceNonFinite(weights)
    let quantized = try QuantizedMatrix(quantizing: weights.view, as: format)
    for (position, value) in try quantized.dequantized().elements.enumerated() {
      weights.store(value, at: weights.offset(of: position))
    }
    return quantized
  }

  /// No code stands for these.
  private static func replaceNonFinite(_ weights: MutableTensor) {
    for position in 0..<weights.shape.count {
      let offset = weights.offset(of: position)
      if !weights.view.load(offset).isFinite { weights.store(1, at: offset) }
    }
  }

  /// Leaves int8 codes times a scale a row, which rounding again does not change.
  fileprivate static func roundToInt8(_ weights: MutableTensor) throws {
    replaceNonFinite(weights)
    let packed = try Context(backend: ReferenceBackend()).packInt8(weights.view)
    for row in 0..<weights.shape[0] {
      for (column, value) in (packed.values(of: row) ?? []).enumerated() { weights[row, column] = value }
    }
  }

  private static func linear(
    _ shape: LinearShape, _ name: String?, _ operands: Operands, x: TensorView, weights: LinearOperands,
    residual: TensorView?, output: MutableTensor
  ) -> Workload {
    let (m, n, k) = (shape.m, shape.n, shape.k)
    let epilogue = Epilogue(scale: shape.scale, bias: weights.bias, activation: shape.activation)
    let workload = Workload(
      .linear, name ?? "\(shape)",
      kernels: shape.kernels,
      flops: 2 * Double(m) * Double(n) * Double(k),
      bytes: 4 * Double(m * k + m * n * (shape.hasResidual ? 2 : 1)) + shape.weightBytes,
      isExactOnIntegers: shape.quantization == nil && !shape.isInt8
        && (shape.activation == .identity || shape.activation == .relu),
      operands: operands, output: output,
      prepare: { context in
        let packed = try weights.packed(context)
        return { y in try context.linear(x, weights: packed, epilogue: epilogue, residual: residual, into: y) }
      },
      bound: { bounds, expected in
        bounds.linear(
          x, weights: try weights.packed(Context(backend: ReferenceBackend())), epilogue: epilogue, residual: residual,
          expected: expected)
      })
    workload.sampling = Sampling(rows: m, work: Double(n) * Double(k)) { rows in
      var part = shape
      part.m = rows.count
      return linear(
        part, name, operands, x: try gather(rows, of: x), weights: weights,
        residual: try residual.map { try gather(rows, of: $0) }, output: try MutableTensor(zeros: Shape(rows.count, n)))
    }
    workload.plainProduct = {
      try plainProduct(
        MatmulShape(m: m, n: n, k: k), operands,
        a: x.reinterpreted(offset: 0, shape: Shape(1, m, k), strides: Shape(0, x.strides[0], x.strides[1])),
        b: weights.weights.reinterpreted(
          offset: 0, shape: Shape(1, k, n), strides: Shape(0, weights.weights.strides[1], weights.weights.strides[0])))
    }
    return workload
  }

  /// `matmul`: strided, transposed, batched, with alpha and beta.
  public static func matmul(_ shape: MatmulShape, name: String? = nil, operands: Operands) throws -> Workload {
    let (batch, m, n, k) = (shape.batch, shape.m, shape.n, shape.k)
    let a =
      shape.transposesA ? try operands.make(Shape(batch, k, m)).transposed() : try operands.make(Shape(batch, m, k))
    let bBatch = shape.sharesB ? 1 : batch
    let b =
      shape.transposesB ? try operands.make(Shape(bBatch, n, k)).transposed() : try operands.make(Shape(bBatch, k, n))
    let residual = shape.hasResidual ? try operands.make(Shape(batch, m, n)) : nil
    let output = try operands.make(Shape(batch, m, n))
    let bias = shape.hasBias ? try operands.vector(n) : nil
    return matmul(shape, name, operands, a: a.view, b: b.view, bias: bias, residual: residual?.view, output: output)
  }

  private static func matmul(
    _ shape: MatmulShape, _ name: String?, _ operands: Operands, a: TensorView, b: TensorView, bias: Tensor?,
    residual: TensorView?, output: MutableTensor
  ) -> Workload {
    let (batch, m, n, k) = (shape.batch, shape.m, shape.n, shape.k)
    let epilogue = Epilogue(scale: shape.alpha, bias: bias, activation: shape.activation)
    let touched = batch * m * k + b.shape[0] * n * k + batch * m * n * (shape.beta == 0 ? 1 : 2)
    let workload = Workload(
      .matmul, name ?? "\(shape)", kernels: ["f32_gemm_block", "f32_gemm_pack_a", "f32_gemm_pack_b", "f32_epilogue"],
      flops: 2 * Double(batch) * Double(m) * Double(n) * Double(k),
      bytes: 4 * Double(touched),
      isExactOnIntegers: shape.activation == .identity || shape.activation == .relu,
      operands: operands, output: output,
      prepare: { context in
        { c in try context.matmul(a, b, beta: shape.beta, epilogue: epilogue, residual: residual, into: c) }
      },
      bound: { bounds, expected in
        bounds.matmul(
          a, b, beta: shape.beta, held: output.view, epilogue: epilogue, residual: residual, expected: expected)
      })
    if shape.beta == 0, batch == 1 {
      workload.sampling = Sampling(rows: m, work: Double(n) * Double(k)) { rows in
        let part = shape.with { $0.m = rows.count }
        func taken(_ view: TensorView) throws -> TensorView {
          let matrix = view.reinterpreted(
            offset: 0, shape: Shape(m, view.shape[2]), strides: Shape(view.strides[1], view.strides[2]))
          return try gather(rows, of: matrix).reshaped(Shape(1, rows.count, view.shape[2]))
        }
        return matmul(
          part, name, operands, a: try taken(a), b: b, bias: bias, residual: try residual.map(taken),
          output: try MutableTensor(zeros: Shape(1, rows.count, n)))
      }
    }
    workload.plainProduct = {
      let plain = MatmulShape(batch: batch, m: m, n: n, k: k).with { $0.sharesB = shape.sharesB }
      return try plainProduct(plain, operands, a: a, b: b)
    }
    return workload
  }

  private static func plainProduct(
    _ shape: MatmulShape, _ operands: Operands, a: TensorView, b: TensorView
  ) throws -> PlainProduct {
    let c = try MutableTensor(zeros: Shape(shape.batch, shape.m, shape.n))
    return PlainProduct(
      a: a, b: b, c: c,
      workload: matmul(shape, nil, operands, a: a, b: b, bias: nil, residual: nil, output: c))
  }
}

/// C = A B for each of a batch, on a workload's own operands and a destination apart.
public struct PlainProduct {
  /// `[batch, m, k]`, any strides.
  public let a: TensorView
  /// `[batch, k, n]`, any strides; a batch of 1 is shared.
  public let b: TensorView
  /// `[batch, m, n]`, contiguous.
  public let c: MutableTensor
  /// What checks `c`.
  public let workload: Workload
}

public struct MatmulShape: Sendable, CustomStringConvertible {
  public var batch, m, n, k: Int
  public var transposesA = false
  public var transposesB = false
  public var sharesB = false
  public var alpha: Float = 1
  public var beta: Float = 0
  public var activation = Activation.identity
  public var hasBias = false
  public var hasResidual = false

  public init(batch: Int = 1, m: Int, n: Int, k: Int) { (self.batch, self.m, self.n, self.k) = (batch, m, n, k) }

  /// The same shape with some fields changed.
  public func with(_ change: (inout MatmulShape) -> Void) -> MatmulShape {
    var copy = self
    change(&copy)
    return copy
  }

  public var description: String {
    (batch == 1 ? "" : "batch=\(batch) ") + "m=\(m) n=\(n) k=\(k)" + (transposesA ? " At" : "")
      + (transposesB ? " Bt" : "") + (sharesB ? " shared B" : "") + (alpha == 1 ? "" : " alpha=\(alpha)")
      + (beta == 0 ? "" : " beta=\(beta)") + (activation == .identity ? "" : " \(activation.rawValue)")
      + (hasBias ? " bias" : "") + (hasResidual ? " residual" : "")
  }
}

extension Suite {
  static let linear = Suite(tests: linearTests + matmulTests, benchmarks: linearBenchmarks + matmulBenchmarks)

  /// Around the tile heights and widths of every instruction set, and primes.
  private static let edges = [0, 1, 2, 3, 5, 6, 7, 12, 13, 16, 17, 31, 32, 33, 49]

  private static let linearTests: [TestCases.Entry] = {
    var shapes: [LinearShape] = []
    for m in edges {
      for n in [0, 1, 15, 16, 17, 33, 65] { shapes.append(LinearShape(m: m, n: n, k: 1 + (m * 7 + n) % 37)) }
    }
    for k in [0, 1, 2, 3, 4, 5, 8, 31, 257, 1031] { shapes.append(LinearShape(m: 7, n: 37, k: k, bias: true)) }
    for activation in Activation.allCases {
      for m in [1, 6, 19] {
        shapes.append(LinearShape(m: m, n: 45, k: 64, activation: activation, bias: true, residual: true, scale: 0.5))
      }
    }
    shapes += [
      LinearShape(m: 150, n: 200, k: 700, bias: true, residual: true), LinearShape(m: 301, n: 67, k: 129),
      LinearShape(m: 1, n: 1023, k: 511, activation: .silu),
      // K in pieces.
      LinearShape(m: 5, n: 40, k: 8300, activation: .gelu, bias: true, residual: true, scale: 0.5),
      LinearShape(m: 19, n: 33, k: 12_400),
    ]
    var random = SeededRandom()
    for _ in 0..<20 {
      shapes.append(
        LinearShape(
          m: .random(in: 0...90, using: &random), n: .random(in: 0...140, using: &random),
          k: .random(in: 0...300, using: &random), activation: .allCases.randomElement(using: &random)!,
          bias: .random(using: &random), residual: .random(using: &random)))
    }
    for format in QuantizedFormat.allCases {
      for m in [1, 2, 4, 9, 16, 17, 40] {
        for n in [0, 1, 16, 33, 130] {
          shapes.append(LinearShape(m: m, n: n, k: format.blockSize * (1 + n % 3), quantization: format))
        }
      }
      shapes += [
        LinearShape(m: 3, n: 50, k: 0, bias: true, quantization: format),
        LinearShape(m: 1, n: 200, k: 2304, activation: .silu, bias: true, residual: true, quantization: format),
        LinearShape(m: 30, n: 70, k: 768, activation: .gelu, bias: true, residual: true, quantization: format),
      ]
    }
    for m in [0, 1, 3, 4, 16, 17, 33, 70] {
      for n in [0, 1, 31, 33, 130] { shapes.append(LinearShape(m: m, n: n, k: (m * 5 + n) % 140, int8: true)) }
    }
    for activation in [Activation.identity, .silu, .gelu] {
      shapes.append(
        LinearShape(m: 35, n: 67, k: 300, activation: activation, bias: true, residual: true, scale: 0.5, int8: true))
    }
    return shapes.map { shape in TestCases.Entry(.linear) { try .linear(shape, operands: $0) } }
  }()

  private static let matmulTests: [TestCases.Entry] = {
    var shapes: [MatmulShape] = []
    for transposesA in [false, true] {
      for transposesB in [false, true] {
        for (m, n, k) in [
          (1, 1, 1), (5, 17, 9), (13, 33, 64), (40, 70, 130), (0, 3, 4), (3, 0, 4), (3, 4, 0), (97, 203, 401),
        ] {
          let shape = MatmulShape(batch: m % 2 == 0 ? 1 : 3, m: m, n: n, k: k)
          shapes.append(shape.with { ($0.transposesA, $0.transposesB) = (transposesA, transposesB) })
          shapes.append(
            shape.with {
              ($0.transposesA, $0.transposesB, $0.sharesB) = (transposesA, transposesB, true)
              ($0.alpha, $0.beta, $0.hasBias) = (-2, 0.5, true)
            })
        }
      }
    }
    let base = MatmulShape(batch: 2, m: 11, n: 29, k: 31)
    shapes += [
      base.with { $0.beta = 1 }, base.with { ($0.alpha, $0.beta, $0.hasResidual) = (0.25, -1, true) },
      base.with { ($0.activation, $0.hasBias, $0.hasResidual) = (.gelu, true, true) },
      MatmulShape(batch: 64, m: 4, n: 4, k: 4), MatmulShape(m: 600, n: 40, k: 300), MatmulShape(m: 40, n: 600, k: 300),
      MatmulShape(batch: 2, m: 3, n: 20, k: 8200).with { ($0.beta, $0.hasResidual) = (0.5, true) },
      MatmulShape(m: 20, n: 24, k: 9000).with { $0.transposesA = true },
    ]
    return shapes.map { shape in TestCases.Entry(.matmul) { try .matmul(shape, operands: $0) } }
  }()

  /// Of products of plain elements.
  fileprivate static let floatKernels = gemmKernels + ["f32_epilogue", "f32_gemm_stream"] + tileKernels
  fileprivate static let quantizedKernels = [
    "f32_gemm_quantized", "f32_quantize", "f32_gemm_quantized8", "f32_quantize8", "f32_gemm_unpack_b",
  ]
  /// On AMX, where operands are of 16 bits.
  fileprivate static let tileKernels = ["bf16_tile_pack_a", "bf16_tile_pack_b", "f32_tile_block"]
  fileprivate static let int8Kernels = ["i8_quantize", "f32_i8_block", "f32_i8_tile_block"]
  private static let gemmKernels = ["f32_gemm_block", "f32_gemm_pack_a", "f32_gemm_pack_b"]

  private static let linearBenchmarks: [BenchmarkCases.Entry] = [
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
    ("long", LinearShape(m: 1, n: 64, k: 65536)), ("long", LinearShape(m: 16, n: 64, k: 65536)),
    ("Llama-3.2-1B up 1", LinearShape(m: 1, n: 8192, k: 2048, quantization: .q8)),
    ("Llama-3.2-1B up 1", LinearShape(m: 1, n: 8192, k: 2048, quantization: .q4)),
    ("Llama-3.2-1B up 1", LinearShape(m: 1, n: 8192, k: 2048, quantization: .q4K)),
    ("Llama-3.2-1B up 1", LinearShape(m: 1, n: 8192, k: 2048, quantization: .q6K)),
    ("Llama-3.2-1B up 1", LinearShape(m: 1, n: 8192, k: 2048, quantization: .q5One)),
    ("Llama-3.2-1B up 1", LinearShape(m: 1, n: 8192, k: 2048, quantization: .q5K)),
    ("Llama-3.2-1B up 128", LinearShape(m: 128, n: 8192, k: 2048, int8: true)),
    ("Llama-3.2-1B up 128", LinearShape(m: 128, n: 8192, k: 2048, quantization: .q8)),
    ("Llama-3.2-1B up 128", LinearShape(m: 128, n: 8192, k: 2048, quantization: .q4)),
  ].map { model, shape in
    BenchmarkCases.Entry(.linear, "\(model): \(shape)", kernels: shape.kernels) {
      try .linear(shape, name: $0, operands: $1)
    }
  }

  private static let matmulBenchmarks: [BenchmarkCases.Entry] = [
    ("square", MatmulShape(m: 256, n: 256, k: 256)), ("square", MatmulShape(m: 512, n: 512, k: 512)),
    ("square", MatmulShape(m: 1024, n: 1024, k: 1024)),
    ("square Bt", MatmulShape(m: 1024, n: 1024, k: 1024).with { $0.transposesB = true }),
    ("SD-1.5 scores", MatmulShape(batch: 16, m: 1024, n: 77, k: 40).with { $0.transposesB = true }),
    ("long", MatmulShape(m: 64, n: 64, k: 65536)),
    ("long At", MatmulShape(m: 64, n: 64, k: 65536).with { $0.transposesA = true }),
    ("many small", MatmulShape(batch: 512, m: 16, n: 16, k: 32)),
  ].map { model, shape in
    BenchmarkCases.Entry(.matmul, "\(model): \(shape)", kernels: gemmKernels) {
      try .matmul(shape, name: $0, operands: $1)
    }
  }
}
