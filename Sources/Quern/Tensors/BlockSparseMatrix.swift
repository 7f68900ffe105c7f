/// A matrix `[outputs, inputs]` of which only some blocks are stored: block compressed sparse rows (BCSR), the layout of
/// SciPy's `bsr_array` and PyTorch's `sparse_bsr`.
///
/// Blocks at the lower and right edges may stick out of the matrix; what they hold there is not part of it.
public struct BlockSparseMatrix: Sendable {
  public let outputs, inputs: Int
  public let blockOutputs, blockInputs: Int
  /// The first block of each block row, then the number of blocks.
  public let offsets: [Int32]
  /// The block column of each block, ascending in a block row.
  public let columns: [Int32]
  /// `[blocks, blockOutputs, blockInputs]`, f32.
  public let values: Tensor

  /// Blocks down and across, stored or not.
  public var blockRows: Int { (outputs + blockOutputs - 1) / blockOutputs }
  public var blockColumns: Int { (inputs + blockInputs - 1) / blockInputs }
  /// Blocks that are stored.
  public var blocks: Int { columns.count }
  /// The share of blocks that are not stored.
  public var sparsity: Double {
    let all = blockRows * blockColumns
    return all == 0 ? 0 : 1 - Double(blocks) / Double(all)
  }

  /// A matrix of these blocks.
  ///
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for sizes that disagree, offsets that decrease, and block
  ///   columns out of range or not strictly ascending.
  public init(
    outputs: Int, inputs: Int, blockOutputs: Int, blockInputs: Int, offsets: [Int32], columns: [Int32], values: Tensor
  ) throws(QuernError) {
    let check = Check(operation: .blockSparseLinear)
    try Self.checkSizes(outputs, inputs, blockOutputs, blockInputs, check)
    (self.outputs, self.inputs, self.blockOutputs, self.blockInputs) = (outputs, inputs, blockOutputs, blockInputs)
    (self.offsets, self.columns, self.values) = (offsets, columns, values)
    try check.blockRows(blockRows, across: blockColumns, offsets: offsets, columns: columns)
    try check.same(values.shape, "values", Shape(columns.count, blockOutputs, blockInputs), "the blocks")
    try check.require(values.dataType == .f32 && values.isContiguous, "values are not contiguous f32")
  }

  /// The blocks of a dense matrix `[outputs, inputs]` that hold an element of magnitude above `threshold`, or a NaN.
  public init(_ dense: TensorView, blockOutputs: Int, blockInputs: Int, threshold: Float = 0) throws {
    let check = Check(operation: .blockSparseLinear)
    try check.require(dense.shape.rank == 2, "the dense matrix has shape \(dense.shape); expected rank 2")
    let (outputs, inputs) = (dense.shape[0], dense.shape[1])
    try Self.checkSizes(outputs, inputs, blockOutputs, blockInputs, check)
    func element(_ i: Int, _ j: Int) -> Float {
      i < outputs && j < inputs ? dense.load(i * dense.strides[0] + j * dense.strides[1]) : 0
    }
    var (offsets, columns): ([Int32], [Int32]) = ([0], [])
    for top in stride(from: 0, to: outputs, by: blockOutputs) {
      for left in stride(from: 0, to: inputs, by: blockInputs) {
        let isKept = (top..<min(top + blockOutputs, outputs)).contains { i in
          (left..<min(left + blockInputs, inputs)).contains { j in !(abs(element(i, j)) <= threshold) }
        }
        if isKept { columns.append(Int32(left / blockInputs)) }
      }
      offsets.append(Int32(columns.count))
    }
    let values = try Tensor(shape: Shape(columns.count, blockOutputs, blockInputs)) { target in
      for row in 0..<(offsets.count - 1) {
        for block in Int(offsets[row])..<Int(offsets[row + 1]) {
          let (top, left) = (row * blockOutputs, Int(columns[block]) * blockInputs)
          for position in 0..<(blockOutputs * blockInputs) {
            target[block * blockOutputs * blockInputs + position] =
              element(top + position / blockInputs, left + position % blockInputs)
          }
        }
      }
    }
    try self.init(
      outputs: outputs, inputs: inputs, blockOutputs: blockOutputs, blockInputs: blockInputs, offsets: offsets,
      columns: columns, values: values)
  }

  /// The dense matrix, zeros where no block is stored.
  public func dense() throws -> Tensor {
    try Tensor(shape: Shape(outputs, inputs)) { target in
      for row in 0..<blockRows {
        for block in Int(offsets[row])..<Int(offsets[row + 1]) {
          let left = Int(columns[block]) * blockInputs
          for i in 0..<min(blockOutputs, outputs - row * blockOutputs) {
            for j in 0..<min(blockInputs, inputs - left) {
              target[(row * blockOutputs + i) * inputs + left + j] =
                values.view.load((block * blockOutputs + i) * blockInputs + j)
            }
          }
        }
      }
    }
  }

  private static func checkSizes(
    _ outputs: Int, _ inputs: Int, _ blockOutputs: Int, _ blockInputs: Int, _ check: Check
  ) throws(QuernError) {
    try check.require(
      outputs >= 0 && inputs >= 0 && max(outputs, inputs) <= Int(Int32.max),
      "a matrix of \(outputs) outputs and \(inputs) inputs")
    try check.require(
      blockOutputs > 0 && blockInputs > 0 && max(blockOutputs, blockInputs) <= Int(Int16.max),
      "blocks of \(blockOutputs) outputs by \(blockInputs) inputs; sides are from 1 to \(Int16.max)")
  }
}

/// A ``BlockSparseMatrix`` laid out once for the backend that will read it. Any backend can read every layout.
public final class PackedBlockSparseMatrix: Sendable {
  public let outputs, inputs: Int
  public let blockOutputs, blockInputs: Int
  public let offsets, columns: [Int32]
  /// Outputs of a panel. Elements lie as `[block row][panel][block][blockInputs][width]`, panels padded with zeros.
  public let width: Int
  /// The packed elements, f32.
  public let storage: Tensor

  /// Wraps packed elements. A backend's `pack` calls this.
  public init(_ matrix: BlockSparseMatrix, width: Int, storage: Tensor) {
    (outputs, inputs) = (matrix.outputs, matrix.inputs)
    (blockOutputs, blockInputs) = (matrix.blockOutputs, matrix.blockInputs)
    (offsets, columns, self.width, self.storage) = (matrix.offsets, matrix.columns, width, storage)
  }

  /// One panel a block row: blocks one after the other, each transposed.
  static func transposed(_ matrix: BlockSparseMatrix) throws -> PackedBlockSparseMatrix {
    let (width, deep) = (matrix.blockOutputs, matrix.blockInputs)
    let storage = try Tensor(shape: Shape(matrix.blocks * width * deep)) { target in
      for block in 0..<matrix.blocks {
        for position in 0..<(width * deep) {
          target[block * width * deep + position] =
            matrix.values.view.load((block * width + position % width) * deep + position / width)
        }
      }
    }
    return PackedBlockSparseMatrix(matrix, width: width, storage: storage)
  }

  /// The blocks that an output has weights in.
  func blocks(of output: Int) -> Range<Int> {
    let row = output / blockOutputs
    return Int(offsets[row])..<Int(offsets[row + 1])
  }

  /// The weights of one output in one of its blocks, by input from the block's first one.
  func elements(of output: Int, block: Int) -> Elements {
    let (row, within) = (output / blockOutputs, output % blockOutputs)
    let (first, next) = (Int(offsets[row]), Int(offsets[row + 1]))
    let panels = (blockOutputs + width - 1) / width
    let position = first * panels + within / width * (next - first) + block - first
    return Elements(
      address: storage.view.address + (position * blockInputs * width + within % width) * 4, dataType: .f32,
      stride: width)
  }
}
