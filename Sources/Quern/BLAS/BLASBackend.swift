import CKernels

#if OpenBLAS
  import COpenBLAS
#endif

/// GEMM-shaped work through OpenBLAS, attention included; the rest is handed to ``MultithreadedBackend``.
///
/// Work is cut over our team of threads and OpenBLAS runs one thread in each piece, so that two pools never compete.
/// Making this backend therefore sets OpenBLAS to one thread for the process.
public struct BLASBackend: Backend {
  public static let name = "blas"

  let rest: MultithreadedBackend

  public var fallback: any Backend { rest }
  public var threads: Int { rest.threads }

  /// - Throws: ``QuernError/unavailableBackend(name:reason:valid:)`` in a build without the `OpenBLAS` trait;
  ///   ``QuernError/invalidSetting(name:value:expected:)`` for options or variables out of range.
  public init(options: BackendOptions = BackendOptions()) throws(QuernError) {
    #if OpenBLAS
      rest = try MultithreadedBackend(options: options)
      openblas_set_num_threads(1)
    #else
      throw .unavailableBackend(name: Self.name, reason: "this build leaves out the OpenBLAS trait", valid: [])
    #endif
  }

  /// The library's version and the kernels it chose, such as `OpenBLAS 0.3.21 ... Zen`.
  public static var libraryVersion: String? {
    #if OpenBLAS
      "\(String(cString: openblas_get_config())) \(String(cString: openblas_get_corename()))"
    #else
      nil
    #endif
  }
}

#if OpenBLAS
  extension BLASBackend {
    public func pack(_ weights: TensorView) throws -> PackedMatrix { try PackedMatrix.panels(of: weights, width: 1) }

    public func linear(
      _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
    ) {
      guard weights.layout == .panels(width: 1), weights.quantization == nil else {
        return handOn(.linear).linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
      }
      let w = TensorView(
        unsafeBase: weights.storage.view.base, shape: Shape(weights.inputs, weights.outputs),
        strides: Shape(1, max(weights.inputs, 1)))
      withExtendedLifetime(weights) {
        let product = GEMM(x, w, beta: 0, epilogue: epilogue, residual: residual, c: y, kernels: rest.table.kernels)
        if let product {
          product.run(threads: threads)
        } else {
          handOn(.linear).linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
        }
      }
    }

    public func matmul(
      _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor
    ) {
      for z in 0..<c.shape[0] {
        func matrix<T: Strided>(_ batched: T) -> T {
          batched.reinterpreted(
            offset: z * batched.strides[0], shape: batched.shape.removing(axis: 0),
            strides: batched.strides.removing(axis: 0))
        }
        let product = GEMM(
          matrix(a), matrix(b), beta: beta, epilogue: epilogue, residual: residual.map(matrix), c: matrix(c),
          kernels: rest.table.kernels)
        guard let product else {
          return handOn(.matmul).matmul(a, b, beta: beta, epilogue: epilogue, residual: residual, into: c)
        }
        product.run(threads: threads)
      }
    }
  }

  /// One product for OpenBLAS, cut along its longer side, with the epilogue run on each piece while it is in cache.
  private struct GEMM {
    let a, b: (base: UnsafePointer<Float>, stride: Int32, transposed: Bool)
    let c: MutableTensor
    let k: Int
    let beta: Float
    let epilogue: Epilogue
    let residual: TensorView?
    let kernels: ck_kernels
    let cutsRows: Bool

    /// `nil` where OpenBLAS cannot take the operands: neither axis of unit stride, beyond 32-bit sizes, or a residual in
    /// the destination that the product would overwrite before an activation.
    init?(
      _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, c: MutableTensor,
      kernels: ck_kernels
    ) {
      guard let a2 = Self.operand(a), let b2 = Self.operand(b),
        max(c.strides[0], c.shape[1], c.shape[0]) < Int(Int32.max)
      else { return nil }
      let accumulates = residual.map { $0.base == UnsafePointer(c.base) } ?? false
      if accumulates && (beta != 0 || epilogue.activation != .identity) { return nil }
      (self.a, self.b, self.c, k) = (a2, b2, c, a.shape[1])
      (self.beta, self.residual) = accumulates ? (1, nil) : (beta, residual)
      (self.epilogue, self.kernels, cutsRows) = (epilogue, kernels, c.shape[0] >= c.shape[1])
    }

    private static func operand(_ x: TensorView) -> (base: UnsafePointer<Float>, stride: Int32, transposed: Bool)? {
      let (rows, columns) = (x.shape[0], x.shape[1])
      guard max(rows, columns) < Int(Int32.max) else { return nil }
      if x.strides[1] == 1 || columns <= 1, rows <= 1 || x.strides[0] >= columns, x.strides[0] < Int(Int32.max) {
        return (x.base, Int32(max(x.strides[0], columns, 1)), false)
      }
      if x.strides[0] == 1 || rows <= 1, columns <= 1 || x.strides[1] >= rows, x.strides[1] < Int(Int32.max) {
        return (x.base, Int32(max(x.strides[1], rows, 1)), true)
      }
      return nil
    }

    /// Pieces start at multiples of this, the height and width of OpenBLAS's tiles.
    private static let unit = 48

    func run(threads: Int) {
      let side = cutsRows ? c.shape[0] : c.shape[1]
      guard c.shape.count > 0 else { return }
      let small = c.shape.count * max(k, 1) < 1 << 17
      let units = (side + Self.unit - 1) / Self.unit
      let pieces = small ? 1 : min(threads, units)
      let grain = (units + pieces - 1) / pieces
      withUnsafePointer(to: self) { call in
        ck_parallel(
          units, grain, threads,
          { context, first, last in
            let gemm = context!.assumingMemoryBound(to: GEMM.self).pointee
            let side = gemm.cutsRows ? gemm.c.shape[0] : gemm.c.shape[1]
            gemm.compute(first * GEMM.unit..<min(last * GEMM.unit, side))
          }, call)
      }
    }

    private func compute(_ piece: Range<Int>) {
      let (row, column) = cutsRows ? (piece.lowerBound, 0) : (0, piece.lowerBound)
      let (m, n) = cutsRows ? (piece.count, c.shape[1]) : (c.shape[0], piece.count)
      let target = c.base + row * c.strides[0] + column
      cblas_sgemm(
        CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans, b.transposed ? CblasTrans : CblasNoTrans,
        Int32(m), Int32(n), Int32(k), epilogue.scale,
        a.base + row * (a.transposed ? 1 : Int(a.stride)), a.stride,
        b.base + column * (b.transposed ? Int(b.stride) : 1), b.stride, beta, target, Int32(max(c.strides[0], n, 1)))
      if epilogue.bias == nil, epilogue.activation == .identity, residual == nil { return }
      var call = ck_rows()
      (call.rows, call.n, call.scale, call.activation) = (m, n, 1, epilogue.activation.code)
      (call.x, call.x_rs) = (UnsafePointer(target), c.strides[0])
      (call.y, call.y_rs) = (target, c.strides[0])
      if let bias = epilogue.bias { call.bias = bias.view.base + column }
      if let residual {
        (call.other, call.other_rs) = (residual.base + row * residual.strides[0] + column, residual.strides[0])
      }
      kernels.f32_epilogue(&call, 0, m)
    }
  }
#endif
