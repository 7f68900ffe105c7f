import Quern

/// How the metadata of a safetensors file says which tensors are blocks of quantised weights; docs/quantized-models.md.
///
///     "quern.quantization.version": "1"
///     "quern.quantization.tensors.NAME": "q8_0 384x1536"
enum QuantizationMetadata {
  static let version = "1"
  private static let prefix = "quern.quantization."
  static let versionKey = prefix + "version"
  private static let tensorPrefix = prefix + "tensors."

  /// What the metadata says of one tensor.
  struct Tensor {
    let name: String
    let format: QuantizedFormat
    let outputs: Int
    let inputs: Int
    private let value: JSONValue

    fileprivate init(name: String, _ value: JSONValue) throws(ModelError) {
      let text = try value.string()
      let parts = text.split(separator: " ", omittingEmptySubsequences: false)
      let extents = parts.last?.split(separator: "x", omittingEmptySubsequences: false) ?? []
      guard parts.count == 2, extents.count == 2 else {
        throw value.error("\(text) is not a format and a shape, such as q8_0 384x1536")
      }
      guard let format = QuantizedFormat(rawValue: String(parts[0])) else {
        let known = QuantizedFormat.allCases.map(\.rawValue).joined(separator: ", ")
        throw value.error("\(parts[0]) is not a format that Quern reads; it reads \(known)")
      }
      (self.name, self.format, self.value) = (name, format, value)
      (outputs, inputs) = (try Self.extent(extents[0], value), try Self.extent(extents[1], value))
    }

    /// A decimal number without sign and leading zeros: what a header's shape may hold.
    private static func extent(_ text: Substring, _ value: JSONValue) throws(ModelError) -> Int {
      guard !text.isEmpty, text.utf8.allSatisfy({ $0 &- UInt8(ascii: "0") < 10 }), text == "0" || text.first != "0"
      else { throw value.error("\(text) is not an extent of a shape") }
      guard let extent = Int(text) else { throw value.error("\(text) does not fit 64 bits") }
      return extent
    }

    func error(_ reason: String) -> ModelError { value.error(reason) }

    /// Refuses a tensor that does not hold the blocks of this matrix.
    func check(dtype: SafetensorsDType, shape: JSONValue) throws(ModelError) {
      guard dtype == .u8 else {
        throw error("the tensor is \(dtype.rawValue), where \(format.rawValue) is stored as U8")
      }
      guard let rowBytes = try rowBytes() else {
        throw error("\(inputs) inputs are no multiple of the \(format.blockSize) of a block")
      }
      var stored: [Int] = []
      try shape.forEachElement { (extent) throws(ModelError) in
        if stored.count < 3 { stored.append(try extent.int()) }
      }
      guard stored == [outputs, rowBytes] else {
        throw error("needs U8 of shape [\(outputs), \(rowBytes)], but the tensor has \(stored)")
      }
    }

    private func rowBytes() throws(ModelError) -> Int? {
      guard inputs % format.blockSize == 0 else { return nil }
      return try Checked.multiply(
        inputs / format.blockSize, format.blockBytes, orThrow: error("the bytes of a row do not fit 64 bits"))
    }
  }

  /// Calls `body` with each tensor that the metadata calls quantised.
  static func forEachTensor(
    _ metadata: JSONValue, _ body: (Tensor) throws(ModelError) -> Void
  ) throws(ModelError) {
    let version = try metadata.optional(versionKey)
    if let version, try version.string() != Self.version {
      throw version.error("\(try version.string()) is not a version that Quern reads; it reads \(Self.version)")
    }
    try metadata.forEachMember { (key, value) throws(ModelError) in
      guard key.utf8.starts(with: prefix.utf8), !key.utf8.elementsEqual(versionKey.utf8) else { return }
      guard key.utf8.starts(with: tensorPrefix.utf8) else {
        throw value.error("is not a key of version \(Self.version)")
      }
      guard version != nil else { throw value.error("stands without \(versionKey)") }
      try body(Tensor(name: String(Substring(key.utf8.dropFirst(tensorPrefix.utf8.count))), value))
    }
  }

  /// What blocks of this format and of this stored shape, checked when the file was opened, stand for.
  static func quantization(_ format: QuantizedFormat, stored: [Int]) -> TensorInfo.Quantization {
    TensorInfo.Quantization(
      format: format, outputs: stored[0], inputs: stored[1] / format.blockBytes * format.blockSize)
  }

  /// The entries of a file with these tensors; none where it has none.
  static func entries(_ tensors: [(name: String, quantization: TensorInfo.Quantization)]) -> [String: String] {
    guard !tensors.isEmpty else { return [:] }
    var entries = [versionKey: version]
    for (name, matrix) in tensors {
      entries[tensorPrefix + name] = "\(matrix.format.rawValue) \(matrix.outputs)x\(matrix.inputs)"
    }
    return entries
  }
}
