import Foundation
import QuernModels

extension MemoryNeed {
  /// Refuses a model that does not fit into memory, before any of it is read.
  func requireAvailable(for model: String, remedy: String, also parts: String = "") throws(ModelError) {
    guard let available = Self.available(), total > available else { return }
    throw ModelError(
      file: model, field: "",
      reason:
        "needs \(Self.gigabytes(total)) of memory (\(Self.gigabytes(weights)) of weights\(parts)), but "
        + "\(Self.gigabytes(available)) are available; take \(remedy), or --ignore-memory")
  }

  static func gigabytes(_ bytes: Int) -> String { String(format: "%.2f GB", Double(bytes) / 1e9) }
}
