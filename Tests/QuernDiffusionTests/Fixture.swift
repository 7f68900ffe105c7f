import Foundation
import Quern
import QuernModels

/// Files in `Fixtures`, made by tools/fixtures/*.py.
enum Fixture {
  static func path(_ name: String) -> String {
    Bundle.module.resourceURL!.appendingPathComponent("Fixtures/\(name)").path
  }

  /// Read with Foundation, so that the reader under test does not judge itself.
  static func decode<T: Decodable>(_: T.Type, _ name: String) throws -> T {
    try JSONDecoder().decode(T.self, from: Data(contentsOf: URL(fileURLWithPath: path(name))))
  }
}

extension TensorSource {
  /// A tensor of a fixture.
  func tensor(_ name: String) throws -> Tensor {
    try Tensor(readFloat32(name), shape: Shape(checking: info(name).shape))
  }
}
