import Quern

/// The tensors of a model directory with matrices in FP8: `NAME` of F8_E4M3 `[outputs, inputs]` reads as its codes times their scales.
///
/// The scales are `NAME_scale_inv` or `NAME_scale`, F32, BF16 or F16: `[⌈outputs / rows⌉, ⌈inputs / columns⌉]`, one for each block;
/// `[outputs, 1]`, one for each row; or one number for the whole tensor. All other tensors are as they are.
/// Sources: DeepSeek-V3, `README_WEIGHTS.md`; compressed-tensors, `initialize_module_for_quantization`.
final class FP8Tensors: TensorSource {
  /// Codes that are read at a time, and scales, unless a row of blocks has more.
  private static let pieceCount = 1 << 18
  private static let scaleCount = 1 << 12

  private let base: SafetensorsDirectory
  private let configuration: FP8Configuration

  /// `nil` where no tensor is in FP8 and where the `config.json` of the directory has no `quantization_config`.
  ///
  /// - Throws: ``ModelError``, also for scales of a weight that is not there or not F8_E4M3.
  init?(_ base: SafetensorsDirectory) throws(ModelError) {
    var hasCodes = false
    for name in base.tensorNames {
      if try base.info(name).dtype == .f8E4M3 { hasCodes = true }
    }
    guard hasCodes, let configuration = try FP8Configuration(HubConfig(directory: base.path)) else { return nil }
    (self.base, self.configuration) = (base, configuration)
    for name in base.tensorNames {
      guard let weight = Self.weight(ofScale: name) else { continue }
      guard base.contains(weight) else { throw try error(name, "", "is the scale of \(weight), which is missing") }
      let dtype = try base.info(weight).dtype
      guard dtype == .f8E4M3 else {
        throw try error(name, "", "is the scale of \(weight), which is \(dtype.rawValue), not F8_E4M3")
      }
    }
  }

  private static func weight(ofScale name: String) -> String? {
    for end in ["_scale_inv", "_scale"] where name.hasSuffix(".weight" + end) {
      return String(name.dropLast(end.count))
    }
    return nil
  }

  var path: String { base.path }
  var tensorNames: [String] { base.tensorNames }

  func contains(_ name: String) -> Bool { base.contains(name) }

  func info(_ name: String) throws(ModelError) -> TensorInfo {
    guard let matrix = try matrix(name) else { return try base.info(name) }
    return matrix.info
  }

  /// The tensor with the scales of `name`; `nil` where that is not in FP8.
  func scaleName(_ name: String) throws(ModelError) -> String? { try matrix(name)?.scaleName }

  func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    guard let matrix = try matrix(name) else { return try base.readFloat32(name, into: destination) }
    guard destination.count == matrix.info.elementCount else {
      throw try error(name, ".shape", "\(matrix.info.shape) does not fill \(destination.count) values")
    }
    var reader = try Reader(matrix, base)
    while reader.position < destination.count {
      let end = min(reader.position + Self.pieceCount, destination.count)
      try reader.read(into: UnsafeMutableBufferPointer(rebasing: destination[reader.position..<end]))
    }
  }

  func forEachFloat32(_ name: String, _ body: (UnsafeBufferPointer<Float>, Int) throws -> Void) throws {
    guard let matrix = try matrix(name) else { return try base.forEachFloat32(name, body) }
    let count = matrix.info.elementCount
    let bytes = try FileBytes(count: 4 * min(count, Self.pieceCount), file: path, field: "tensors.\(name)")
    let values = bytes.mutableBytes.bindMemory(to: Float.self)
    var reader = try Reader(matrix, base)
    while reader.position < count {
      let first = reader.position
      let piece = UnsafeMutableBufferPointer(rebasing: values[..<min(values.count, count - first)])
      try reader.read(into: piece)
      try body(UnsafeBufferPointer(piece), first)
    }
  }

  func readInt64(_ name: String) throws(ModelError) -> [Int64] { try base.readInt64(name) }

  func readBytes(_ name: String) throws(ModelError) -> FileBytes { try base.readBytes(name) }

  func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    try base.readBytes(name, into: destination)
  }

  // MARK: Matrices and their scales

  private struct Matrix {
    let name, scaleName: String
    let info, scales: TensorInfo
    /// Elements of a row, and of a block in it; rows of a block.
    let columns, blockColumns, blockRows: Int
    /// Scales of a row of blocks, and rows of blocks.
    var scaleColumns: Int { scales.shape.last ?? 1 }
    var scaleRows: Int { scales.elementCount / max(scaleColumns, 1) }
    /// Rows of blocks whose scales are read at a time.
    var scaleRun: Int { min(scaleRows, max(FP8Tensors.scaleCount / max(scaleColumns, 1), 1)) }
  }

  /// `nil` for a tensor that is not in FP8.
  private func matrix(_ name: String) throws(ModelError) -> Matrix? {
    let info = try base.info(name)
    guard info.dtype == .f8E4M3 else { return nil }
    let (inverse, plain) = (name + "_scale_inv", name + "_scale")
    let scaleName = base.contains(plain) && !base.contains(inverse) ? plain : inverse
    guard base.contains(scaleName) else {
      throw try error(scaleName, "", "is missing, while \(name) is F8_E4M3", at: name)
    }
    guard scaleName == plain || !base.contains(plain) else {
      throw try error(plain, "", "is there beside \(inverse): which scales \(name)?")
    }
    let scales = try base.info(scaleName)
    guard [.f32, .bf16, .f16].contains(scales.dtype) else {
      throw try error(scaleName, ".dtype", "\(scales.dtype.rawValue) is not supported; supported: F32, BF16, F16")
    }
    if scales.elementCount == 1, scales.shape.count < 2 {
      let all = max(info.elementCount, 1)
      return Matrix(
        name: name, scaleName: scaleName, info: info, scales: scales, columns: all, blockColumns: all, blockRows: 1)
    }
    if configuration.hasRowScales, info.shape.count == 2, scales.shape == [info.shape[0], 1] {
      return Matrix(
        name: name, scaleName: scaleName, info: info, scales: scales, columns: info.shape[1],
        blockColumns: max(info.shape[1], 1), blockRows: 1)
    }
    guard let block = configuration.block else {
      let rows = configuration.hasRowScales ? ", and scales of its rows [\(info.shape.first ?? 0), 1]" : ""
      throw try error(
        scaleName, ".shape",
        "is \(scales.shape), and config.json has no weight_block_size or block_structure; a scale of all of \(name) "
          + "is [] or [1]\(rows)")
    }
    let blocks =
      info.shape.count == 2 ? [info.shape[0].blocks(of: block.rows), info.shape[1].blocks(of: block.columns)] : []
    guard info.shape.count == 2, scales.shape == blocks else {
      throw try error(
        scaleName, ".shape",
        "is \(scales.shape); blocks of [\(block.rows), \(block.columns)] of \(name) \(info.shape) "
          + (info.shape.count == 2 ? "need \(blocks)" : "are not supported, only those of a matrix"))
    }
    return Matrix(
      name: name, scaleName: scaleName, info: info, scales: scales, columns: info.shape[1], blockColumns: block.columns,
      blockRows: block.rows)
  }

  private func error(
    _ name: String, _ field: String, _ reason: String, at other: String? = nil
  ) throws(ModelError) -> ModelError {
    ModelError(
      file: try base.reader(other ?? name).file.path, field: "tensors.\(name)\(field)",
      offset: try base.info(other ?? name).byteRange.lowerBound, reason: reason)
  }

  /// Reads a matrix from its first element to its last, with the scales of some rows of blocks at a time.
  private struct Reader {
    private(set) var position = 0
    private let matrix: Matrix
    private let file, scaleFile: TensorFile
    private let codes, scaleBytes: FileBytes
    private var scales: UnsafeMutableBufferPointer<Float> { scaleBytes.mutableBytes.bindMemory(to: Float.self) }
    /// The rows of blocks that `scales` are of.
    private var rows = 0..<0

    init(_ matrix: Matrix, _ base: SafetensorsDirectory) throws(ModelError) {
      self.matrix = matrix
      (file, scaleFile) = (try base.reader(matrix.name), try base.reader(matrix.scaleName))
      codes = try FileBytes(
        count: min(matrix.info.elementCount, FP8Tensors.pieceCount), file: file.file.path,
        field: "tensors.\(matrix.name)")
      scaleBytes = try FileBytes(
        count: (matrix.scaleRun * matrix.scaleColumns).saturatingMultiply(4), file: scaleFile.file.path,
        field: "tensors.\(matrix.scaleName)")
    }

    /// The next elements, at most ``FP8Tensors/pieceCount``.
    mutating func read(into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
      let start = matrix.info.byteRange.lowerBound + position
      let bytes = UnsafeMutableRawBufferPointer(rebasing: codes.mutableBytes[..<destination.count])
      try file.file.read(into: bytes, at: start, field: "tensors.\(matrix.name)")
      var done = 0
      while done < destination.count {
        let (line, column) = (position + done).quotientAndRemainder(dividingBy: matrix.columns)
        let row = line / matrix.blockRows
        try readScales(row)
        let block = column / matrix.blockColumns, scale = scales[(row - rows.lowerBound) * matrix.scaleColumns + block]
        let blockEnd = min((block + 1) * matrix.blockColumns, matrix.columns)
        let run = done..<min(done + blockEnd - column, destination.count)
        let isSound = E4M3.widen(
          UnsafeRawBufferPointer(rebasing: bytes[run]), scale: scale,
          into: UnsafeMutableBufferPointer(rebasing: destination[run]))
        guard isSound else { throw notANumber(bytes, run, at: start) }
        done = run.upperBound
      }
      position += done
    }

    private func notANumber(_ bytes: UnsafeMutableRawBufferPointer, _ run: Range<Int>, at start: Int) -> ModelError {
      let place = run.first { E4M3.isNaN(bytes[$0]) } ?? run.lowerBound
      return ModelError(
        file: file.file.path, field: "tensors.\(matrix.name)", offset: start + place,
        reason: "element \(position + place) is NaN, which no weight may be")
    }

    private mutating func readScales(_ row: Int) throws(ModelError) {
      guard !rows.contains(row) else { return }
      let (info, next) = (matrix.scales, row..<min(row + matrix.scaleRun, matrix.scaleRows))
      let (count, first) = (next.count * matrix.scaleColumns, row * matrix.scaleColumns)
      let width = info.dtype.bits / 8
      let start = info.byteRange.lowerBound + first * width
      let slice = TensorInfo(
        dtype: info.dtype, shape: [count], byteRange: start..<start + count * width, elementCount: count)
      let read = UnsafeMutableBufferPointer(rebasing: scales[..<count])
      try scaleFile.readFloat32(matrix.scaleName, slice, into: read)
      // Zero stands for a block of zeros; below it lies nothing that a largest magnitude could give.
      if let place = read.firstIndex(where: { !($0 >= 0 && ($0 * E4M3.largest).isFinite) }) {
        throw ModelError(
          file: scaleFile.file.path, field: "tensors.\(matrix.scaleName)", offset: start + place * width,
          reason: "element \(first + place) is \(read[place]); a scale is at least 0, and 448 of it are finite")
      }
      rows = next
    }
  }
}

extension Int {
  /// Blocks of `size`, the last perhaps not full.
  fileprivate func blocks(of size: Int) -> Int { self / size + (self % size == 0 ? 0 : 1) }
}
