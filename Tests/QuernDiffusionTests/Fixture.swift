import Foundation
import Quern
import QuernModels

/// Files in `Fixtures`, made by tools/fixtures/*.py.
enum Fixture {
  static func path(_ name: String) -> String {
    Bundle.module.resourceURL!.appendingPathComponent("Fixtures/\(name)").path
  }
}

extension TensorSource {
  /// A tensor of a fixture.
  func tensor(_ name: String) throws -> Tensor {
    try Tensor(readFloat32(name), shape: Shape(checking: info(name).shape))
  }
}
