import CKernels

/// Rows in at most 256 pieces, the same for any number of threads, so that what they add up to has the same bits.
enum RowPieces {
  static func map<Result>(_ rows: Int, threads: Int, _ body: (Range<Int>) -> Result) -> [Result] {
    let size = rows / 256 + 1
    let count = rows / size + (rows % size == 0 ? 0 : 1)
    return [Result](unsafeUninitializedCapacity: count) { buffer, filled in
      let results = buffer
      withoutActuallyEscaping(body) { body in
        let run: (Int) -> Void = { piece in
          results.initializeElement(at: piece, to: body(piece * size..<min(rows, (piece + 1) * size)))
        }
        withUnsafePointer(to: run) { run in
          ck_parallel(
            count, 1, threads,
            { context, first, last in
              let run = context!.assumingMemoryBound(to: ((Int) -> Void).self).pointee
              for piece in first..<last { run(piece) }
            }, run)
        }
      }
      filled = count
    }
  }
}

extension TensorView {
  /// Elements `first...` of a row of a matrix, widened: `count` of them in `scratch`, or where they lie if that is possible.
  @inline(__always)
  func block(_ row: Int, _ first: Int, _ count: Int, _ scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    let start = address + (row * strides[0] + first * strides[1]) * dataType.size
    let step = strides[1]
    switch dataType {
    case .f32 where step == 1: return start.assumingMemoryBound(to: Float.self)
    case .f32: for i in 0..<count { scratch[i] = DataType.f32.load(start, i * step) }
    case .bf16: for i in 0..<count { scratch[i] = DataType.bf16.load(start, i &* step) }
    case .f16: for i in 0..<count { scratch[i] = DataType.f16.load(start, i &* step) }
    }
    return UnsafePointer(scratch)
  }

  /// Calls `body` with each run of `size` elements of these rows, until it is false. The last of a row may be shorter.
  @inline(__always)
  fileprivate func forEachBlock(
    of size: Int, in rows: Range<Int>, _ body: (Int, Int, UnsafeBufferPointer<Float>) -> Bool
  ) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: size) { scratch in
      guard let base = scratch.baseAddress, shape[1] > 0 else { return }
      for row in rows {
        for first in stride(from: 0, to: shape[1], by: size) {
          let count = min(size, shape[1] - first)
          let values = UnsafeBufferPointer(start: block(row, first, count, base), count: count)
          if !body(row, first, values) { return }
        }
      }
    }
  }
}

extension QuantizedFormat {
  /// Rounds weights `[outputs, inputs]` into blocks at `target`.
  ///
  /// - Returns: the first block, by row and first input, that has no finite scale; `nil` for none.
  func encode(
    _ weights: TensorView, into target: UnsafeMutableRawPointer, threads: Int
  ) -> (row: Int, first: Int)? {
    let rowBytes = weights.shape[1] / blockSize * blockBytes
    let failures = RowPieces.map(weights.shape[0], threads: threads) { rows -> (Int, Int)? in
      var failure: (Int, Int)?
      weights.forEachBlock(of: blockSize, in: rows) { row, first, values in
        let block = target + row * rowBytes + first / blockSize * blockBytes
        if let base = values.baseAddress, encode(base, into: block) { return true }
        failure = (row, first)
        return false
      }
      return failure
    }
    return failures.lazy.compactMap { $0 }.first
  }

  /// One block; false where it has no finite scale.
  package func encode(_ values: UnsafePointer<Float>, into block: UnsafeMutableRawPointer) -> Bool {
    switch self {
    case .q8, .q4, .mxfp4: encodeSmall(values, into: block)
    case .q4K: Self.encodeQ4K(values, fifths: nil, into: block)
    case .q5K: Self.encodeQ4K(values, fifths: (block + 16).assumingMemoryBound(to: UInt8.self), into: block)
    case .q5One: Self.encodeQ5One(values, into: block)
    case .q6K: Self.encodeQ6K(values, into: block)
    }
  }

  private static func encodeQ5One(_ values: UnsafePointer<Float>, into block: UnsafeMutableRawPointer) -> Bool {
    var (least, most) = (values[0], values[0])
    for i in 0..<32 {
      guard values[i].isFinite else { return false }
      (least, most) = (min(least, values[i]), max(most, values[i]))
    }
    guard let scale = store(most / 31 - least / 31, to: block), let low = store(least, to: block + 2) else {
      return false
    }
    var fifths: UInt32 = 0
    for i in 0..<16 {
      let (first, second) = (nearest(values[i] - low, scale, 0, 31), nearest(values[i + 16] - low, scale, 0, 31))
      block.storeBytes(of: first & 15 | second << 4, toByteOffset: 8 + i, as: UInt8.self)
      fifths |= UInt32(first >> 4) << UInt32(i) | UInt32(second >> 4) << UInt32(i + 16)
    }
    block.storeBytes(of: fifths.littleEndian, toByteOffset: 4, as: UInt32.self)
    return true
  }

  @inline(__always)
  private func encodeSmall(_ values: UnsafePointer<Float>, into block: UnsafeMutableRawPointer) -> Bool {
    // Magnitudes have the order of their bits, NaN last.
    var largest: Int32 = 0
    for i in 0..<blockSize { largest = max(largest, Int32(truncatingIfNeeded: values[i].magnitude.bitPattern)) }
    let magnitude = Float(bitPattern: UInt32(largest))
    guard magnitude.isFinite else { return false }
    let codes = block + 2
    if self == .q8 {
      guard let scale = Self.store(magnitude / 127, to: block) else { return false }
      for i in 0..<blockSize {
        codes.storeBytes(of: Self.nearest(values[i], scale, -127, 127), toByteOffset: i, as: UInt8.self)
      }
    } else if self == .mxfp4 {
      // 6 is 1.5 times a power of two; d/2 is stored, whose least is 2^-127.
      let exponent = magnitude == 0 ? -127 : max(Int((magnitude / 1.5).exponent) - 3, -127)
      var half = Float(sign: .plus, exponent: exponent, significand: 1)
      while magnitude > 12 * half { half *= 2 }
      DataType.bf16.store(half, to: block, 0)
      for i in 0..<16 {
        let code = Self.nearestE2M1(values[i], half) | Self.nearestE2M1(values[i + 16], half) << 4
        codes.storeBytes(of: code, toByteOffset: i, as: UInt8.self)
      }
    } else {
      var first = 0
      while values[first].magnitude != magnitude { first += 1 }
      guard let scale = Self.store(values[first] / -8, to: block) else { return false }
      for i in 0..<16 {
        let low = Self.nearest(values[i], scale, -8, 7) &+ 8
        let high = Self.nearest(values[i + 16], scale, -8, 7) &+ 8
        codes.storeBytes(of: low | high << 4, toByteOffset: i, as: UInt8.self)
      }
    }
    return true
  }

  /// The 4-bit float nearest to `value / 2 half`, of two the one with an even code.
  private static func nearestE2M1(_ value: Float, _ half: Float) -> UInt8 {
    let steps = value.magnitude / half
    // Halfway between neighbours, in halves: 0.5, 1.5, 2.5, 3.5, 5, 7, 10.
    var code: UInt8 = steps > 0.5 ? 1 : 0
    if steps >= 1.5 { code = 2 }
    if steps > 2.5 { code = 3 }
    if steps >= 3.5 { code = 4 }
    if steps > 5 { code = 5 }
    if steps >= 7 { code = 6 }
    if steps > 10 { code = 7 }
    return value.sign == .minus && code != 0 ? code | 8 : code
  }

  /// Stores d in f16; what it became, or `nil` where that is not finite.
  @inline(__always)
  static func store(_ scale: Float, to block: UnsafeMutableRawPointer) -> Float? {
    DataType.f16.store(scale, to: block, 0)
    let stored = DataType.f16.load(block, 0)
    return stored.isFinite ? stored : nil
  }

  /// The integer nearest to `value / scale`, ties to even, within bounds, in two's complement; 0 where the scale is.
  @inline(__always)
  static func nearest(_ value: Float, _ scale: Float, _ low: Float, _ high: Float) -> UInt8 {
    let steps = scale == 0 ? 0 : max(low, min(high, value / scale))
    // The last place of 1.5 * 2^23 is 1: the sum rounds, and its low bits are the integer.
    return UInt8(truncatingIfNeeded: (steps + 0x1.8p23).bitPattern)
  }
}

/// What storing weights in fewer bits changed.
package struct RoundingError: Sendable, Equatable {
  /// The largest error of a weight, as a share of the largest magnitude in its run of 32 along the row.
  package var largestShare = 0.0
  /// The sums of the squares of the errors and of the weights.
  package var squaredError = 0.0
  package var squaredWeights = 0.0

  /// The root of the mean squared error, as a share of that of the weights.
  package var relative: Double { squaredWeights > 0 ? (squaredError / squaredWeights).squareRoot() : 0 }

  /// `stored(row, first, i)` is what stands for weight `first + i` of a row.
  fileprivate init(
    of weights: TensorView, threads: Int, _ stored: (Int, Int, Int) -> Float
  ) {
    let pieces = RowPieces.map(weights.shape[0], threads: threads) { rows in
      var sum = Self()
      weights.forEachBlock(of: 32, in: rows) { row, first, values in
        var (largest, worst) = (0.0, 0.0)
        for i in values.indices {
          let weight = Double(values[i])
          let error = abs(weight - Double(stored(row, first, i)))
          (largest, worst) = (max(largest, abs(weight)), max(worst, error))
          sum.squaredError += error * error
          sum.squaredWeights += weight * weight
        }
        if largest > 0 { sum.largestShare = max(sum.largestShare, worst / largest) }
        return true
      }
      return sum
    }
    self = pieces.reduce(Self()) { $0.adding($1) }
  }

  package init() {}

  private func adding(_ other: Self) -> Self {
    var sum = self
    sum.largestShare = max(largestShare, other.largestShare)
    sum.squaredError += other.squaredError
    sum.squaredWeights += other.squaredWeights
    return sum
  }
}

extension QuantizedMatrix {
  /// What the blocks lost of the weights `[outputs, inputs]` they were made from.
  package func roundingError(of weights: TensorView) throws -> RoundingError {
    try Check(operation: .pack).require(
      weights.shape == Shape(outputs, inputs), "weights \(weights.shape), blocks of [\(outputs), \(inputs)]")
    let threads = try Settings.environment().threads(for: BackendOptions())
    let (format, rowBytes) = (format, inputs / format.blockSize * format.blockBytes)
    return withBlocks { blocks in
      RoundingError(of: weights, threads: threads) { row, first, i in
        guard let base = blocks.baseAddress else { return 0 }
        let block = base + row * rowBytes + first / format.blockSize * format.blockBytes
        return Float(format.weight(block, first % format.blockSize + i).value)
      }
    }
  }
}

extension TensorView {
  /// A matrix rounded to bf16, and what that changed.
  ///
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for an element that is not finite once it is rounded.
  package func roundedToBFloat16() throws -> (Tensor, RoundingError) {
    let check = Check(operation: .pack)
    try check.require(shape.rank == 2, "weights \(shape) need rank 2: [outputs, inputs]")
    let threads = try Settings.environment().threads(for: BackendOptions())
    let inputs = shape[1]
    let rounded = try Tensor(shape: shape, dataType: .bf16) { bytes in
      guard let target = bytes.baseAddress else { return }
      let failures = RowPieces.map(shape[0], threads: threads) { rows -> (Int, Int)? in
        var failure: (Int, Int)?
        forEachBlock(of: 32, in: rows) { row, first, values in
          var finite = true
          for i in values.indices {
            let bits = DataType.bfloat(values[i])
            finite = finite && bits & 0x7F80 != 0x7F80
            target.storeBytes(of: bits, toByteOffset: (row * inputs + first + i) * 2, as: UInt16.self)
          }
          if !finite { failure = (row, first) }
          return finite
        }
        return failure
      }
      if let (row, first) = failures.lazy.compactMap({ $0 }).first {
        try check.require(false, "weights [\(row), \(first)...] are not finite, or too large for bf16")
      }
    }
    let view = rounded.view
    let error = RoundingError(of: self, threads: threads) { row, first, i in view.load(row * inputs + first + i) }
    return (rounded, error)
  }
}
