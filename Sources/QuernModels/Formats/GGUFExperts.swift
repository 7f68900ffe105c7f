import Quern

/// The tensors of a GGUF file, and each expert of its stacked ones as a tensor of its own: `blk.0.ffn_exps.3.gate.weight` is the
/// fourth matrix of `blk.0.ffn_gate_exps.weight`, `[experts, outputs, inputs]`. `blk.0.ffn_exps.gate_bias` is `blk.0.ffn_gate_exps.bias`,
/// and `blk.0.ffn_shexp.gate.weight` is `blk.0.ffn_gate_shexp.weight`. A stack of gates and values together is called `gate_up`.
struct GGUFExperts: TensorSource {
  let gguf: GGUF

  var path: String { gguf.path }
  var tensorNames: [String] { gguf.tensorNames }

  /// A matrix of a stack.
  private struct Slice {
    let stack: String
    /// Of the elements or blocks as the file has them.
    let info: TensorInfo
    var name: String
  }

  func contains(_ name: String) -> Bool {
    Self.place(name).map { gguf.contains($0.stack) } ?? gguf.contains(Self.own(name))
  }

  func info(_ name: String) throws(ModelError) -> TensorInfo {
    if let slice = try slice(name) { return slice.info }
    return try gguf.info(Self.own(name))
  }

  func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    guard let slice = try slice(name) else { return try gguf.readFloat32(Self.own(name), into: destination) }
    try gguf.reader(slice.stack).readFloat32(slice.name, slice.info, into: destination)
  }

  func readInt64(_ name: String) throws(ModelError) -> [Int64] {
    guard let slice = try slice(name) else { return try gguf.readInt64(Self.own(name)) }
    return try gguf.reader(slice.stack).readInt64(slice.name, slice.info)
  }

  func readBytes(_ name: String) throws(ModelError) -> FileBytes {
    guard let slice = try slice(name) else { return try gguf.readBytes(Self.own(name)) }
    return try gguf.reader(slice.stack).readBytes(slice.name, slice.info)
  }

  func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    guard let slice = try slice(name) else { return try gguf.readBytes(Self.own(name), into: destination) }
    try gguf.reader(slice.stack).readBytes(slice.name, slice.info, into: destination)
  }

  // MARK: Slices

  /// The stack and the place in it that a name is about; nil for the name of a tensor.
  private static func place(_ name: String) -> (stack: String, expert: Int)? {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 6, parts[2] == "ffn_exps", let expert = Int(parts[3]), expert >= 0 else { return nil }
    return ("\(parts[0]).\(parts[1]).ffn_\(parts[4])_exps.\(parts[5])", expert)
  }

  /// The name that the file has for a tensor which is not part of one.
  private static func own(_ name: String) -> String {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    if parts.count == 4, parts[2] == "ffn_exps", parts[3].hasSuffix("_bias") {
      return "\(parts[0]).\(parts[1]).ffn_\(parts[3].dropLast("_bias".count))_exps.bias"
    }
    guard parts.count == 5, parts[2] == "ffn_shexp" else { return name }
    return "\(parts[0]).\(parts[1]).ffn_\(parts[3])_shexp.\(parts[4])"
  }

  private func slice(_ name: String) throws(ModelError) -> Slice? {
    guard let (stack, expert) = Self.place(name) else { return nil }
    let whole = try gguf.info(stack)
    // Of blocks, the last extent is that of the bytes of a row.
    guard whole.shape.count == 3, expert < whole.shape[0] else {
      throw ModelError(
        file: path, field: "tensors.\(stack).shape", offset: whole.byteRange.lowerBound,
        reason: "is \(whole.shape), where expert \(expert) of [experts, outputs, inputs] is needed")
    }
    let (experts, size) = (whole.shape[0], whole.byteRange.count / whole.shape[0])
    let start = whole.byteRange.lowerBound + expert * size
    let blocks = whole.quantization.map {
      TensorInfo.Quantization(
        format: $0.format, outputs: $0.outputs / experts, inputs: $0.inputs, stored: $0.stored)
    }
    let info = TensorInfo(
      dtype: whole.dtype, shape: Array(whole.shape[1...]), byteRange: start..<start + size,
      elementCount: whole.elementCount / experts, quantization: blocks)
    return Slice(stack: stack, info: info, name: "\(stack)[\(expert)]")
  }
}
