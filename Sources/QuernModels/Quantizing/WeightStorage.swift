import Quern

/// How the matrices of linear layers can be stored: in a quantised format, or in bf16.
public enum WeightStorage: Sendable, Hashable, CaseIterable {
  case blocks(QuantizedFormat)
  case bf16

  public static let allCases = QuantizedFormat.allCases.map { WeightStorage.blocks($0) } + [.bf16]

  /// `q8_0`, `q4_0`, `q4_K`, `q6_K`, `mxfp4`, `q5_1`, `q5_K`, `bf16`.
  public var name: String {
    switch self {
    case .blocks(let format): format.rawValue
    case .bf16: DataType.bf16.rawValue
    }
  }

  public init?(name: String) {
    guard let storage = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = storage
  }

  /// The inputs of a row are a multiple of this.
  public var granularity: Int {
    switch self {
    case .blocks(let format): format.blockSize
    case .bf16: 1
    }
  }
}

/// What ``ModelQuantizer`` did.
public struct QuantizationReport: Sendable, Encodable {
  /// A matrix in its new storage.
  public struct Matrix: Sendable, Encodable {
    public var name: String
    public var outputs: Int
    public var inputs: Int
    public var bytesBefore: Int
    public var bytesAfter: Int
    /// The largest error of a weight, as a share of the largest magnitude in its run of 32 along the row.
    public var largestError: Double
    /// The root of the mean squared error, as a share of that of the weights.
    public var relativeError: Double
  }

  /// The name of the storage.
  public var storage: String
  public var matrices: [Matrix] = []
  public var kept: [KeptMatrix] = []
  /// Tensors that belong to no linear layer of the model; they are the same bytes as before.
  public var otherTensors = 0
  /// Of all files with weights.
  public var bytesBefore = 0
  public var bytesAfter = 0
}
