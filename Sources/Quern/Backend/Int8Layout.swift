/// Where codes and scales of int8 weights lie: `CKernels/include/ck_int8.h`.
struct Int8Layout {
  let outputs: Int
  let inputs: Int

  /// Outputs of a panel, and what inputs are padded to a multiple of.
  private static let (width, step) = (32, 64)

  private var depth: Int { (inputs + Self.step - 1) / Self.step * Self.step }
  /// Bytes of the codes; the scales follow.
  var codeBytes: Int { (outputs + Self.width - 1) / Self.width * Self.width * depth }
  /// As 16-bit words, which tensors can hold.
  var words: Int { (codeBytes + outputs * 4) / 2 }

  private func place(_ output: Int, _ input: Int) -> Int {
    (output / Self.width * depth / 4 + input / 4) * Self.width * 4 + output % Self.width * 4 + input % 4
  }

  /// The weights of one output, by input.
  func values(of output: Int, at address: UnsafeRawPointer) -> [Double] {
    let scale = Double(address.load(fromByteOffset: codeBytes + 4 * output, as: Float.self))
    return (0..<inputs).map { scale * Double(address.load(fromByteOffset: place(output, $0), as: Int8.self)) }
  }

  /// Rounds weights `[outputs, inputs]`, by the arithmetic of the kernels; `packed` is zeros.
  func pack(_ weights: TensorView, into packed: UnsafeMutableRawPointer) {
    for output in 0..<outputs {
      let row = (0..<inputs).map { Float(weights[output, $0]) }
      let unit = max(row.reduce(0) { max($0, abs($1)) }, 0x1p-100) / 127
      let finite = row.allSatisfy(\.isFinite)
      packed.storeBytes(of: finite ? unit : .nan, toByteOffset: codeBytes + 4 * output, as: Float.self)
      for (input, value) in row.enumerated() where finite {
        let code = Int8(max(-127, min(127, (value / unit).rounded(.toNearestOrEven))))
        packed.storeBytes(of: code, toByteOffset: place(output, input), as: Int8.self)
      }
    }
  }

  func hasFiniteScales(_ packed: UnsafeRawPointer) -> Bool {
    (0..<outputs).allSatisfy { packed.load(fromByteOffset: codeBytes + 4 * $0, as: Float.self).isFinite }
  }
}
