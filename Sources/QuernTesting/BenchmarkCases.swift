import Quern

/// The shapes every operation is timed at, taken from real models.
public enum BenchmarkCases {
  /// One operation at one shape.
  public struct Entry: Sendable {
    public let operation: Quern.Operation
    /// The model and layer, then the shape.
    public let name: String
    public let kernels: [String]
    /// How its operands are stored.
    let dataType: DataType
    let make: @Sendable (String, Operands) throws -> Workload

    init(
      _ operation: Quern.Operation, _ name: String, kernels: [String], dataType: DataType = .f32,
      make: @escaping @Sendable (String, Operands) throws -> Workload
    ) {
      (self.operation, self.name, self.kernels, self.dataType, self.make) = (operation, name, kernels, dataType, make)
    }

    /// The model that the shape is from; `nil` for the shapes that every library is measured at.
    public var model: String? { models.first { name.hasPrefix($0) } }

    /// The workload, its operands made from this seed.
    public func workload(seed: UInt64 = SeededRandom.runSeed) throws -> Workload {
      try make(name, Operands(seed: seed, dataType: dataType))
    }
  }

  private static let models = ["MiniLM", "Llama-3.2-1B", "Qwen3-0.6B", "SD-1.5", "MobileNetV2"]

  /// Every case, family by family.
  public static let all: [Entry] = Suite.all.flatMap(\.benchmarks)
}
