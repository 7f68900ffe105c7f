import CKernels

/// The SIMD kernels of CKernels on every core allowed: the default.
///
/// Results have the same bits for any number of threads. One team of threads serves the process; a caller that finds
/// it busy runs in place. Operations it cannot find scratch memory for go to ``fallback``.
public struct MultithreadedBackend: Backend {
  public static let name = "multithreaded"

  public let threads: Int
  let table: KernelTable
  /// What may go through tiles.
  let split: ck_split
  let activationBits: ActivationBits
  let convolution: ConvolutionSums

  public var isa: ISA? { table.isa }
  public var dataTypes: DataTypes { .all }

  /// - Throws: ``QuernError/invalidSetting(name:value:expected:)`` for options or variables out of range.
  public init(options: BackendOptions = BackendOptions()) throws(QuernError) {
    let settings = try Settings.environment()
    threads = try settings.threads(for: options)
    split = (options.f32 ?? settings.f32 ?? .fma).code
    activationBits = options.activationBits ?? settings.activationBits ?? .sixteen
    convolution = options.convolution ?? settings.convolution ?? .winograd
    table = try KernelTable(options.isa)
  }

  /// How this table's products read weights of a type.
  func layout(of type: DataType) -> PackedMatrix.Layout {
    let width = table.kernels.gemm_nr
    return type == .bf16 ? .pairs(width: width) : .panels(width: width)
  }

  public func pack(_ weights: TensorView) throws -> PackedMatrix {
    let (outputs, inputs) = (weights.shape[0], weights.shape[1])
    let shape = Shape(ck_f32_packed_size(table.pointer, outputs, inputs))
    let storage = try Tensor(uninitialized: shape, dataType: weights.dataType) { packed in
      ck_pack_b(
        table.pointer, weights.dataType.code, outputs, inputs, weights.address, weights.strides[1], weights.strides[0],
        packed.baseAddress, threads)
    }
    var magnitudes: (least: Float, most: Float)?
    if weights.dataType == .bf16 {
      let range = ck_packed_range(table.pointer, outputs, inputs, storage.view.address, threads)
      if range.least > 0 { magnitudes = (range.least, range.most) }
    }
    return PackedMatrix(
      outputs: outputs, inputs: inputs, layout: layout(of: weights.dataType), storage: storage, quantization: nil,
      magnitudes: magnitudes)
  }

  public func pack(_ weights: QuantizedMatrix) throws -> PackedMatrix {
    let (outputs, inputs, width) = (weights.outputs, weights.inputs, table.kernels.gemm_nr)
    let bytes = ck_packed_bytes(weights.format.code, (outputs + width - 1) / width * width * inputs)
    let storage = try Tensor(shape: Shape(bytes / 2), dataType: .f16) { packed in
      weights.withBlocks { blocks in
        ck_pack_quantized(
          table.pointer, weights.format.code, outputs, inputs, blocks.baseAddress, packed.baseAddress, threads)
      }
    }
    return PackedMatrix(
      outputs: outputs, inputs: inputs, layout: .panels(width: width), storage: storage, quantization: weights.format)
  }

  public func packInt8(_ weights: TensorView) throws -> PackedMatrix {
    let layout = Int8Layout(outputs: weights.shape[0], inputs: weights.shape[1])
    guard weights.strides[1] == 1 || weights.shape[1] <= 1 else { return try handOn(.pack).packInt8(weights) }
    var failed = false
    let storage = try Tensor(shape: Shape(layout.words), dataType: .f16) { packed in
      guard let codes = packed.baseAddress?.assumingMemoryBound(to: Int8.self) else { return }
      let scales = UnsafeMutableRawPointer(codes + layout.codeBytes).assumingMemoryBound(to: Float.self)
      failed =
        ck_int8_pack(
          table.pointer, layout.outputs, layout.inputs, weights.dataType.code, weights.address, weights.strides[0],
          codes, scales, threads) != 0
    }
    if failed { return try handOn(.pack).packInt8(weights) }
    return PackedMatrix(outputs: layout.outputs, inputs: layout.inputs, layout: .int8, storage: storage)
  }

  /// Runs a row kernel of the table over the rows of `y`; false, with nothing written, where memory for operands that are
  /// not f32 cannot be had.
  func run(
    _ kernel: ck_rows_kernel?, _ x: TensorView, other: TensorView? = nil, into y: MutableTensor,
    configure: (inout ck_rows) -> Void = { _ in }
  ) -> Bool {
    var call = ck_rows()
    (call.rows, call.n, call.x_n) = (y.shape[0], y.shape[1], x.shape[1])
    (call.x, call.x_rs, call.x_type) = (x.pointer, x.strides[0], x.dataType.code)
    if let other {
      (call.other, call.other_rs, call.other_type) = (other.pointer, other.strides[0], other.dataType.code)
    }
    (call.y, call.y_rs, call.y_type) = (y.pointer, y.strides[0], y.dataType.code)
    (call.scale, call.diagonal) = (1, noDiagonal)
    configure(&call)
    return ck_rows_run(table.pointer, kernel, &call, threads) == 0
  }
}

/// CK_NO_DIAGONAL, which the importer does not see.
private let noDiagonal = Int.max

extension Activation {
  /// The C name.
  package var code: ck_activation {
    switch self {
    case .identity: CK_IDENTITY
    case .relu: CK_RELU
    case .gelu: CK_GELU_ERF
    case .geluTanh: CK_GELU_TANH
    case .silu: CK_SILU
    case .quickGelu: CK_QUICK_GELU
    case .tanh: CK_TANH
    case .sigmoid: CK_SIGMOID
    }
  }
}

/// The process's team of threads.
public enum ThreadTeam {
  /// What made the threads: `openmp` or `pthread`.
  public static var kind: String { String(cString: ck_team_kind()) }
  /// Threads started so far, callers not counted.
  public static var workers: Int { ck_team_workers() }
}
